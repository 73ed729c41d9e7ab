// The directory with dakd's sockets, held by a lock for as long as the object lives.
//
// Errors of Claim: FAILED_PRECONDITION with ALREADY_RUNNING (the message names the other's pid where it is known),
// INTERNAL with errno's text.
#ifndef DAK_DAEMON_RUNTIME_DIR_H_
#define DAK_DAEMON_RUNTIME_DIR_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/unique_fd.h"

namespace dak::daemon {

class RuntimeDir {
 public:
  // Makes the directory (mode 0755) if it isn't there; its parent must be.
  static absl::StatusOr<RuntimeDir> Claim(const std::string& path);

  std::string control_socket() const { return absl::StrCat(path_, "/control.sock"); }
  std::string handles_socket() const { return absl::StrCat(path_, "/handles.sock"); }
  // Removes both sockets. The lock file stays: removing it would let two daemons hold "the" lock.
  void RemoveSockets() const;

 private:
  RuntimeDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RUNTIME_DIR_H_
