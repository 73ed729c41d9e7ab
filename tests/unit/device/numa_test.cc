#include "allocator/device/cuda/numa.h"

#include <sys/mman.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/device/node_tree.h"

namespace dak {
namespace {

TEST(NumaTest, ReadsANodesMemory) {
  NodeTree tree({1000, 0, 3000});
  EXPECT_EQ(NodeMemoryBytes(tree.root(), 0).value(), 1000 * 1024);
  EXPECT_EQ(NodeMemoryBytes(tree.root(), 2).value(), 3000 * 1024);
}

TEST(NumaTest, FindsTheLineAmongOthers) {
  NodeTree tree({});
  tree.Write(1, "\nNode 1 MemFree:        5 kB\nNode 1 MemTotal:  77 kB\nNode 1 MemUsed:        6 kB\n");
  EXPECT_EQ(NodeMemoryBytes(tree.root(), 1).value(), 77 * 1024);
}

TEST(NumaTest, SaysWhichNodeHasNoSize) {
  NodeTree tree({1000});
  tree.Write(1, "Node 1 MemTotal:  many kB\n");
  tree.Write(2, "Node 2 MemTotal:  5 MB\n");
  for (int node : {1, 2, 3}) {
    const absl::Status status = NodeMemoryBytes(tree.root(), node).status();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("NUMA node " + std::to_string(node)));
  }
}

TEST(NumaTest, KnowsTheMachinesMemory) { EXPECT_GT(MachineMemoryBytes(), uint64_t{64} << 20); }

TEST(NumaTest, BindingToANodeThatIsNotThereFails) {
  void* data = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(data, MAP_FAILED);
  const absl::Status status = BindToNode(data, 4096, kMaxNode);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("mbind failed"));
  ::munmap(data, 4096);
}

}  // namespace
}  // namespace dak
