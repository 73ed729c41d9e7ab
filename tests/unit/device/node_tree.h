// A folder like /sys/devices/system/node, made for a test and removed with it.
#ifndef DAK_TESTS_UNIT_DEVICE_NODE_TREE_H_
#define DAK_TESTS_UNIT_DEVICE_NODE_TREE_H_

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace dak {

class NodeTree {
 public:
  // Node i has kib[i] KiB; 0: there is no such node.
  explicit NodeTree(const std::vector<uint64_t>& kib) {
    std::string pattern = std::filesystem::temp_directory_path() / "dak-nodes-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    for (size_t node = 0; node < kib.size(); ++node) {
      if (kib[node] != 0)
        Write(node, "Node " + std::to_string(node) + " MemTotal:       " + std::to_string(kib[node]) + " kB\n");
    }
  }
  ~NodeTree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  NodeTree(const NodeTree&) = delete;
  NodeTree& operator=(const NodeTree&) = delete;

  void Write(size_t node, const std::string& meminfo) {
    const std::filesystem::path folder = std::filesystem::path(root_) / ("node" + std::to_string(node));
    std::filesystem::create_directory(folder);
    std::ofstream(folder / "meminfo") << meminfo;
  }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

}  // namespace dak

#endif  // DAK_TESTS_UNIT_DEVICE_NODE_TREE_H_
