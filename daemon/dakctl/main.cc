#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "daemon/dakctl/dakctl.h"

int main(int argc, char** argv) {
  // gRPC's own diagnostics would stand before ours.
  ::setenv("GRPC_VERBOSITY", "NONE", 0);
  dak::dakctl::Terminal terminal;
  terminal.is_tty = ::isatty(STDOUT_FILENO) == 1;
  winsize size{};
  if (terminal.is_tty && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    terminal.columns = size.ws_col;
    terminal.rows = size.ws_row;
  }
  const std::vector<std::string> args(argv + 1, argv + argc);
  return dak::dakctl::RunDakctl(args, std::cout, std::cerr, terminal);
}
