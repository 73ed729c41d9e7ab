#include "tests/bench/dak_bench/shapes.h"

#include <map>

#include "tests/bench/dak_bench/check.h"

namespace dak::bench {

std::vector<Shape> ShapesOf(const std::string& model) {
  const std::map<std::string, std::vector<Shape>> shapes = {
      {"llama8b",
       {{"8b.qkv", 6144, 4096}, {"8b.o", 4096, 4096}, {"8b.gate_up", 28'672, 4096}, {"8b.down", 4096, 14'336}}},
      {"llama70b",
       {{"70b.qkv", 10'240, 8192}, {"70b.o", 8192, 8192}, {"70b.gate_up", 57'344, 8192}, {"70b.down", 8192, 28'672}}},
      {"opt6.7b", {{"opt6.7b.qkv", 12'288, 4096}, {"opt6.7b.fc1", 16'384, 4096}, {"opt6.7b.fc2", 4096, 16'384}}},
      {"opt30b", {{"opt30b.qkv", 21'504, 7168}, {"opt30b.fc1", 28'672, 7168}, {"opt30b.fc2", 7168, 28'672}}}};
  std::vector<Shape> result;
  for (const auto& [name, list] : shapes) {
    if (model == name || model == "all") result.insert(result.end(), list.begin(), list.end());
  }
  if (result.empty()) Fail("--model", "llama8b, llama70b, opt6.7b, opt30b or all");
  return result;
}

}  // namespace dak::bench
