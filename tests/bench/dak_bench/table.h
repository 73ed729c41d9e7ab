// Rows of named values, printed as an aligned table and written as JSON.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_TABLE_H_
#define DAK_TESTS_BENCH_DAK_BENCH_TABLE_H_

#include <cstddef>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/bench/dak_bench/report_file.h"

namespace dak::bench {

class Table {
 public:
  using Value = std::variant<std::string, double>;
  class Row {
   public:
    Row& Text(const std::string& name, const std::string& value);
    // NaN prints as "-" and is null in JSON: not measured.
    Row& Number(const std::string& name, double value);

   private:
    friend class Table;
    std::vector<std::pair<std::string, Value>> cells_;
  };

  // With `report`, which must outlive the table, every row is written to the file as well.
  explicit Table(std::string title, ReportFile* report = nullptr) : title_(std::move(title)), report_(report) {}
  // Adds the row and prints it; the first row prints the header too.
  void Add(const Row& row);
  std::string ToJson() const;

 private:
  std::string title_;
  ReportFile* report_;
  size_t number_ = 0;  // in the report
  std::vector<Row> rows_;
};

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_TABLE_H_
