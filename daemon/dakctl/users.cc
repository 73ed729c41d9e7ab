#include "daemon/dakctl/users.h"

#include <grp.h>
#include <pwd.h>

namespace dak::dakctl {

std::string UserName(uint32_t uid) {
  char buffer[4096];
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) != 0 || found == nullptr) return std::to_string(uid);
  return found->pw_name;
}

std::string GroupName(uint32_t gid) {
  char buffer[4096];
  group entry{};
  group* found = nullptr;
  if (::getgrgid_r(gid, &entry, buffer, sizeof(buffer), &found) != 0 || found == nullptr) return std::to_string(gid);
  return found->gr_name;
}

}  // namespace dak::dakctl
