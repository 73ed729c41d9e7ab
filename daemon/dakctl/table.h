// Aligned columns of text. Thread safety: none; one owner.
#ifndef DAK_DAEMON_DAKCTL_TABLE_H_
#define DAK_DAEMON_DAKCTL_TABLE_H_

#include <string>
#include <vector>

namespace dak::dakctl {

class Table {
 public:
  enum class Align { kLeft, kRight };

  // A column; call before the first Row.
  Table& Column(std::string title, Align align = Align::kLeft);
  // One cell a column. Cells are made Printable here, so that none can be forgotten.
  void Row(const std::vector<std::string>& cells);
  bool empty() const { return rows_.empty(); }
  // Header and rows, each ending in a line break, without blanks at the end; `indent` blanks before each.
  std::string Render(size_t indent = 0) const;

 private:
  struct Spec {
    std::string title;
    Align align;
  };
  std::vector<Spec> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_TABLE_H_
