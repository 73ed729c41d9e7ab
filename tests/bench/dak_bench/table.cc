#include "tests/bench/dak_bench/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace dak::bench {
namespace {

constexpr size_t kLeastWidth = 9;
constexpr size_t kLeastTextWidth = 19;

std::string Format(const Table::Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  const double number = std::get<double>(value);
  if (std::isnan(number)) return "-";
  char buffer[32];
  const double magnitude = std::fabs(number);
  const bool whole = number == std::floor(number) && magnitude < 1e9;
  std::snprintf(buffer, sizeof(buffer),
                whole               ? "%.0f"
                : magnitude >= 1000 ? "%.0f"
                : magnitude >= 10   ? "%.1f"
                                    : "%.4g",
                number);
  return buffer;
}

std::string Json(const Table::Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return "\"" + *text + "\"";
  const double number = std::get<double>(value);
  if (!std::isfinite(number)) return "null";
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.6g", number);
  return buffer;
}

}  // namespace

Table::Row& Table::Row::Text(const std::string& name, const std::string& value) {
  cells_.emplace_back(name, value);
  return *this;
}

Table::Row& Table::Row::Number(const std::string& name, double value) {
  cells_.emplace_back(name, value);
  return *this;
}

void Table::Add(const Row& row) {
  const auto width = [](const std::string& name, const Value& value) {
    const size_t least = std::holds_alternative<std::string>(value) ? kLeastTextWidth : kLeastWidth;
    return static_cast<int>(std::max(least, name.size()));
  };
  if (rows_.empty()) {
    std::printf("\n%s\n", title_.c_str());
    for (const auto& [name, value] : row.cells_) std::printf("%*s ", width(name, value), name.c_str());
    std::printf("\n");
  }
  for (const auto& [name, value] : row.cells_) std::printf("%*s ", width(name, value), Format(value).c_str());
  std::printf("\n");
  std::fflush(stdout);
  rows_.push_back(row);
  if (report_ == nullptr) return;
  if (rows_.size() == 1) number_ = report_->AddTable();
  report_->SetTable(number_, ToJson());
}

std::string Table::ToJson() const {
  std::string json = "{\"title\": \"" + title_ + "\", \"rows\": [";
  for (size_t i = 0; i < rows_.size(); ++i) {
    json += i == 0 ? "\n  {" : ",\n  {";
    for (size_t j = 0; j < rows_[i].cells_.size(); ++j) {
      const auto& [name, value] = rows_[i].cells_[j];
      json += (j == 0 ? "\"" : ", \"") + name + "\": " + Json(value);
    }
    json += "}";
  }
  return json + "\n]}";
}

}  // namespace dak::bench
