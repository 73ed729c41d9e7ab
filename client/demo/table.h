// What the demo shows while it runs: once a second the pools and a line a session.
//
// On a terminal the table stays in place; elsewhere every update is printed under the last.
// Thread safety: none.
#ifndef DAK_CLIENT_DEMO_TABLE_H_
#define DAK_CLIENT_DEMO_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace dak::demo {

struct PoolRow {
  std::string tier;
  uint64_t used_bytes = 0;
  uint64_t capacity_bytes = 0;
};

struct SessionRow {
  std::string name;
  uint32_t weight = 0;
  uint64_t hbm_bytes = 0;
  uint64_t host_bytes = 0;
  double ratio = 0;  // share of the weights that is remote
  double passes_per_s = 0;
  double remote_bytes_per_s = 0;
  uint64_t window_bytes = 0;
  uint64_t checked = 0;
  double worst_error = 0;
};

class Table {
 public:
  explicit Table(bool in_place) : in_place_(in_place) {}
  void Show(double seconds, const std::vector<PoolRow>& pools, const std::vector<SessionRow>& sessions);
  // The next table starts below what is printed from now on.
  void Leave() { lines_ = 0; }

 private:
  void Line(const std::string& text);
  const bool in_place_;
  int lines_ = 0;
  bool titled_ = false;
};

// "12.5 GB/s", "340 MB/s".
std::string RateText(double bytes_per_s);
// "1.5 GiB", "38 MiB".
std::string SizeText(uint64_t bytes);

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_TABLE_H_
