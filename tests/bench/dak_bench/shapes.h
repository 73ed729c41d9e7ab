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

// Rows out of `rows` that a split at `ratio` makes remote: whole tiles of 64, rounded up, as dakd gives them out; with
// `exact`, rounded to rows.
uint64_t RemoteRows(uint64_t rows, double ratio, bool exact);

// The same for operations of which all together must give up `ratio` of their bytes, as the planner rounds its plans;
// with `exact`, each rounded up to rows.
std::vector<uint64_t> RemoteRowsOfPass(const std::vector<Shape>& operations, double ratio, bool exact);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_SHAPES_H_
