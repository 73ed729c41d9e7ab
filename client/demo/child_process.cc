#include "client/demo/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace dak::demo {
namespace {

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::abort();
}

int ExitOf(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status); }

}  // namespace

ChildProcess::ChildProcess(std::vector<std::string> argv, const Environment& environment) {
  int to_child[2];
  int from_child[2];
  if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(from_child, O_CLOEXEC) != 0) Die("pipe2");
  std::vector<char*> arguments;
  for (std::string& argument : argv) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  // Put together before the fork: a child of a threaded process may hardly do anything.
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  for (const auto& [name, value] : environment) {
    std::erase_if(variables, [&](const std::string& v) { return v.starts_with(name + "="); });
    variables.push_back(name + "=" + value);
  }
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(to_child[0], STDIN_FILENO);
    dup2(from_child[1], STDOUT_FILENO);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execve(arguments[0], arguments.data(), envp.data());
    _exit(127);
  }
  if (pid_ < 0) Die("fork");
  close(to_child[0]);
  close(from_child[1]);
  input_ = UniqueFd(to_child[1]);
  output_ = UniqueFd(from_child[0]);
}

ChildProcess::~ChildProcess() {
  if (!exit_.has_value()) Kill();
}

std::optional<std::string> ChildProcess::TakeLine() {
  const size_t end = pending_.find('\n');
  if (end == std::string::npos) return std::nullopt;
  std::string line = pending_.substr(0, end);
  pending_.erase(0, end + 1);
  return line;
}

bool ChildProcess::ReadMore() {
  char bytes[4096];
  const ssize_t count = read(output_.get(), bytes, sizeof(bytes));
  if (count <= 0) return false;
  pending_.append(bytes, static_cast<size_t>(count));
  return true;
}

std::optional<std::string> ChildProcess::ReadLine() {
  for (;;) {
    if (auto line = TakeLine()) return line;
    if (!ReadMore()) return std::nullopt;
  }
}

std::optional<std::string> ChildProcess::ReadLineWithin(std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    if (auto line = TakeLine()) return line;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd polled{.fd = output_.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&polled, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (ready <= 0 || !ReadMore()) return std::nullopt;
  }
}

void ChildProcess::WriteLine(const std::string& line) {
  const std::string text = line + "\n";
  if (write(input_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) Die("write");
}

void ChildProcess::Signal(int signal) {
  if (!exit_.has_value()) kill(pid_, signal);
}

void ChildProcess::Kill() {
  Signal(SIGKILL);
  Wait();
}

int ChildProcess::Wait() {
  if (exit_.has_value()) return *exit_;
  int status = 0;
  if (waitpid(pid_, &status, 0) < 0) Die("waitpid");
  exit_ = ExitOf(status);
  return *exit_;
}

bool ChildProcess::alive() {
  if (exit_.has_value()) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  exit_ = ExitOf(status);
  return false;
}

}  // namespace dak::demo
