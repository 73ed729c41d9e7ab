// A process started by this one, driven over its standard input and output, one line each way.
//
// The child dies with its parent. Thread safety: none. A child that wasn't waited for is killed on destruction.
// Errors: a program that can't be started shows as the end of its output and exit code 127.
#ifndef DAK_CLIENT_DEMO_CHILD_PROCESS_H_
#define DAK_CLIENT_DEMO_CHILD_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "allocator/base/unique_fd.h"

namespace dak::demo {

class ChildProcess {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;
  // argv[0] is the program's path; `environment` is added to this process's.
  explicit ChildProcess(std::vector<std::string> argv, const Environment& environment = {});
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // The next line of its output; nothing once that is closed.
  std::optional<std::string> ReadLine();
  // The same, but nothing also if none comes in time.
  std::optional<std::string> ReadLineWithin(std::chrono::milliseconds patience);
  void WriteLine(const std::string& line);
  void Signal(int signal);
  void Kill();
  // The exit code, or -signal. Harmless to repeat.
  int Wait();
  bool alive();  // hasn't ended yet
  pid_t pid() const { return pid_; }

 private:
  std::optional<std::string> TakeLine();
  bool ReadMore();

  pid_t pid_ = -1;
  std::optional<int> exit_;
  UniqueFd input_;
  UniqueFd output_;
  std::string pending_;
};

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_CHILD_PROCESS_H_
