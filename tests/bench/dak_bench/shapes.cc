#include "tests/bench/dak_bench/shapes.h"

#include <cmath>
#include <map>

#include "allocator/base/remote_rows.h"
#include "daemon/planner/planner.h"
#include "tests/bench/dak_bench/fail.h"

namespace dak::bench {
namespace {

constexpr uint32_t kTileRows = 64;  // dakd's default
constexpr uint64_t kElementBytes = 2;

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
  if (exact) return static_cast<uint64_t>(std::llround(ratio * static_cast<double>(rows)));
  return dak::RemoteRows(rows, ratio, kTileRows);
}

std::vector<uint64_t> RemoteRowsOfPass(const std::vector<Shape>& operations, double ratio, bool exact) {
  std::vector<uint64_t> ceilings;
  planner::PassPlan plan;
  std::vector<planner::RowSplit> splits;
  uint64_t bytes = 0;
  for (const Shape& operation : operations) {
    const uint64_t row_bytes = operation.k * kElementBytes;
    ceilings.push_back(static_cast<uint64_t>(std::ceil(ratio * static_cast<double>(operation.n))));
    plan.operations.push_back({.ratio = ratio, .tier_ratios = {ratio}});
    splits.push_back({.rows = operation.n, .tile_rows = kTileRows, .row_bytes = row_bytes});
    bytes += operation.n * row_bytes;
  }
  if (exact) return ceilings;
  const auto budget_bytes = static_cast<uint64_t>((1 - ratio) * static_cast<double>(bytes));
  const auto rows = planner::RoundToTiles(plan, splits, budget_bytes);
  if (!rows.ok()) Fail("rounding to tiles", std::string(rows.status().message()).c_str());
  return *rows;
}

}  // namespace dak::bench
