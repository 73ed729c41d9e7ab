#include "tests/integration/harness/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <utility>

namespace dak::testing {

ChildProcess::ChildProcess(std::vector<std::string> argv) {
  int to_child[2];
  int from_child[2];
  if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(from_child, O_CLOEXEC) != 0) std::abort();
  std::vector<char*> arguments;
  for (std::string& argument : argv) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(to_child[0], STDIN_FILENO);
    dup2(from_child[1], STDOUT_FILENO);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  if (pid_ < 0) std::abort();
  close(to_child[0]);
  close(from_child[1]);
  input_ = UniqueFd(to_child[1]);
  output_ = UniqueFd(from_child[0]);
}

ChildProcess::~ChildProcess() {
  if (pid_ >= 0) Kill();
}

std::optional<std::string> ChildProcess::ReadLine() {
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    char bytes[512];
    const ssize_t count = read(output_.get(), bytes, sizeof(bytes));
    if (count <= 0) return std::nullopt;
    pending_.append(bytes, static_cast<size_t>(count));
  }
}

void ChildProcess::WriteLine(const std::string& line) {
  const std::string text = line + "\n";
  if (write(input_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
}

void ChildProcess::Kill() {
  kill(pid_, SIGKILL);
  Wait();
}

int ChildProcess::Wait() {
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) std::abort();
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace dak::testing
