#include "allocator/device/cuda/numa.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "allocator/device/memory_file.h"

namespace dak {

absl::StatusOr<uint64_t> NodeMemoryBytes(const std::string& root, int node) {
  const std::string path = absl::StrCat(root, "/node", node, "/meminfo");
  std::ifstream file(path);
  // "Node 0 MemTotal:       131072000 kB"
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    uint64_t kib = 0;
    if (words.size() == 5 && words[2] == "MemTotal:" && words[4] == "kB" && absl::SimpleAtoi(words[3], &kib)) {
      return kib * 1024;
    }
  }
  return absl::NotFoundError(absl::StrCat("NUMA node ", node, ": ", path, " says no size"));
}

uint64_t MachineMemoryBytes() {
  return static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

absl::Status BindToNode(void* address, uint64_t bytes, int node) {
  constexpr size_t kWordBits = 8 * sizeof(unsigned long);
  std::array<unsigned long, (kMaxNode + 1) / kWordBits> mask{};
  mask[static_cast<size_t>(node) / kWordBits] = 1UL << (static_cast<size_t>(node) % kWordBits);
  // By number, since the C library has no wrapper; one more than the bits, as the kernel counts.
  if (::syscall(SYS_mbind, address, bytes, MPOL_BIND, mask.data(), mask.size() * kWordBits + 1, 0) != 0) {
    return SystemError("mbind", errno);
  }
  return absl::OkStatus();
}

}  // namespace dak
