// A bench's results as JSON, in a file that is whole at any time: written beside it and renamed after every row, so a
// run that is killed leaves the rows that it had.
//
// Thread safety: none. Errors: a file that can't be written ends the program with a message.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_REPORT_FILE_H_
#define DAK_TESTS_BENCH_DAK_BENCH_REPORT_FILE_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace dak::bench {

// To be called first in main: what is printed into a pipe is there after each line, too, and not lost with a program
// that is killed.
void FlushEveryLine();

// Replaces the file's contents, all or nothing; false, with errno, if that fails.
bool WriteWhole(const std::string& path, const std::string& text);

class ReportFile {
 public:
  // Makes the document of the tables so far, as JSON each.
  using Compose = std::function<std::string(const std::vector<std::string>& tables)>;

  ReportFile() = default;  // writes nothing
  ReportFile(std::string path, Compose compose) : path_(std::move(path)), compose_(std::move(compose)) {}

  // A table's number.
  size_t AddTable();
  // Replaces a table, and writes the file.
  void SetTable(size_t number, std::string json);
  void Write() const;

 private:
  std::string path_;  // empty: none
  Compose compose_;
  std::vector<std::string> tables_;
};

// "[first, second]", but for a single one itself.
std::string JoinTables(const std::vector<std::string>& tables);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_REPORT_FILE_H_
