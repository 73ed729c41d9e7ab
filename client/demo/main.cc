// dak-demo: see demo.h for its course, options.cc for its flags.
#include <cstdio>
#include <string>

#include "client/demo/demo.h"
#include "client/demo/device_memory.h"
#include "client/demo/options.h"
#include "client/demo/worker.h"

int main(int argc, char** argv) {
  std::string error;
  const auto options = dak::demo::ParseOptions(argc, argv, &error);
  if (!options.has_value()) {
    std::fprintf(stderr, "dak-demo: %s\n", error.c_str());
    return 2;
  }
  if (options->help) {
    std::fputs(dak::demo::HelpText(), stdout);
    return 0;
  }
  if (options->memory) return dak::demo::RunMemory();
  if (options->worker) return dak::demo::RunWorker(*options);
  return dak::demo::Demo(*options).Run();
}
