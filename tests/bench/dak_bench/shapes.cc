#include "tests/bench/dak_bench/shapes.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "tests/bench/dak_bench/fail.h"

namespace dak::bench {
namespace {

constexpr uint64_t kTileRows = 64;  // dakd's default

}  // namespace

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

uint64_t RemoteRows(uint64_t rows, double ratio, bool exact) {
  const double wanted = ratio * static_cast<double>(rows);
  if (exact) return static_cast<uint64_t>(std::llround(wanted));
  const auto tiles = static_cast<uint64_t>(std::ceil(wanted / kTileRows - 1e-9));
  return std::min(rows, tiles * kTileRows);
}

std::vector<uint64_t> RemoteRowsOfPass(const std::vector<Shape>& operations, double ratio, bool exact) {
  std::vector<uint64_t> rows;
  std::vector<double> missing;  // of a tile
  double missing_elements = 0;
  for (const Shape& operation : operations) {
    const double wanted = ratio * static_cast<double>(operation.n);
    rows.push_back(static_cast<uint64_t>(exact ? std::ceil(wanted) : std::floor(wanted / kTileRows) * kTileRows));
    missing.push_back((wanted - static_cast<double>(rows.back())) / kTileRows);
    missing_elements += (wanted - static_cast<double>(rows.back())) * static_cast<double>(operation.k);
  }
  std::vector<size_t> order(operations.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return missing[a] > missing[b]; });
  for (const size_t i : order) {
    if (missing_elements <= 0) break;
    const uint64_t more = std::min(kTileRows, operations[i].n - rows[i]);
    rows[i] += more;
    missing_elements -= static_cast<double>(more * operations[i].k);
  }
  return rows;
}

}  // namespace dak::bench
