#include "tests/bench/neighbours/load.h"

namespace dak::bench {

std::unique_ptr<Load> CreateGpuLoad(const NeighboursOptions&) { return nullptr; }
uint32_t VisibleMultiprocessors() { return 0; }

}  // namespace dak::bench
