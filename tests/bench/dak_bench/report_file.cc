#include "tests/bench/dak_bench/report_file.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace dak::bench {

void FlushEveryLine() { std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ); }

bool WriteWhole(const std::string& path, const std::string& text) {
  const std::string draft = path + ".part";
  std::FILE* const file = std::fopen(draft.c_str(), "w");
  if (file == nullptr) return false;
  bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  written = std::fclose(file) == 0 && written;
  if (written && std::rename(draft.c_str(), path.c_str()) == 0) return true;
  const int error = errno;
  std::remove(draft.c_str());
  errno = error;
  return false;
}

size_t ReportFile::AddTable() {
  tables_.emplace_back();
  return tables_.size() - 1;
}

void ReportFile::SetTable(size_t number, std::string json) {
  tables_[number] = std::move(json);
  Write();
}

void ReportFile::Write() const {
  if (path_.empty()) return;
  std::vector<std::string> with_rows;
  for (const std::string& table : tables_) {
    if (!table.empty()) with_rows.push_back(table);
  }
  if (WriteWhole(path_, compose_(with_rows))) return;
  std::fprintf(stderr, "%s can't be written: %s\n", path_.c_str(), std::strerror(errno));
  std::exit(1);
}

std::string JoinTables(const std::vector<std::string>& tables) {
  if (tables.size() == 1) return tables[0];
  std::string text;
  for (const std::string& table : tables) text += (text.empty() ? "" : ",\n") + table;
  return "[" + text + "]";
}

}  // namespace dak::bench
