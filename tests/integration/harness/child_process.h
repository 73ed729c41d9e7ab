// A client in a process of its own, driven over its standard input and output, one line each way.
//
// Thread safety: none. A child that isn't killed or waited for is killed on destruction.
#ifndef DAK_TESTS_INTEGRATION_HARNESS_CHILD_PROCESS_H_
#define DAK_TESTS_INTEGRATION_HARNESS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "allocator/base/unique_fd.h"

namespace dak::testing {

class ChildProcess {
 public:
  // argv[0] is the program's path.
  explicit ChildProcess(std::vector<std::string> argv);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // The next line that it writes; nothing once its output is closed.
  std::optional<std::string> ReadLine();
  void WriteLine(const std::string& line);
  void Kill();
  // The exit code, or -signal.
  int Wait();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  UniqueFd input_;
  UniqueFd output_;
  std::string pending_;
};

}  // namespace dak::testing

#endif  // DAK_TESTS_INTEGRATION_HARNESS_CHILD_PROCESS_H_
