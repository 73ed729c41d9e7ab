// Names of users and groups. Thread safety: any thread.
#ifndef DAK_DAEMON_DAKCTL_USERS_H_
#define DAK_DAEMON_DAKCTL_USERS_H_

#include <cstdint>
#include <string>

namespace dak::dakctl {

// The account's name, or the number where it has none here.
std::string UserName(uint32_t uid);
std::string GroupName(uint32_t gid);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_USERS_H_
