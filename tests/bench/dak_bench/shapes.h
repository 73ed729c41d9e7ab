// The linear layers of the models that the bench knows.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_SHAPES_H_
#define DAK_TESTS_BENCH_DAK_BENCH_SHAPES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace dak::bench {

struct Shape {
  std::string name;
  uint64_t n;
  uint64_t k;
};

// Of llama8b, llama70b, opt6.7b, opt30b or all; another name ends the program with a message.
std::vector<Shape> ShapesOf(const std::string& model);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_SHAPES_H_
