#include "client/demo/table.h"

#include <cstdarg>
#include <cstdio>

namespace dak::demo {
namespace {

std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string Format(const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

}  // namespace

std::string RateText(double bytes_per_s) {
  if (bytes_per_s >= 1e9) return Format("%.2f GB/s", bytes_per_s / 1e9);
  return Format("%.1f MB/s", bytes_per_s / 1e6);
}

std::string SizeText(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib >= 1024 ? Format("%.2f GiB", mib / 1024) : Format("%.0f MiB", mib);
}

void Table::Line(const std::string& text) {
  std::printf("%s%s\n", text.c_str(), in_place_ ? "\x1b[K" : "");
  ++lines_;
}

void Table::Show(double seconds, const std::vector<PoolRow>& pools, const std::vector<SessionRow>& sessions) {
  if (in_place_ && lines_ > 0) std::printf("\x1b[%dA", lines_);
  lines_ = 0;
  std::string pool_text = Format("%6.1f s  pools:", seconds);
  for (const PoolRow& pool : pools) {
    pool_text += "  " + pool.tier + " " + SizeText(pool.used_bytes) + " of " + SizeText(pool.capacity_bytes);
  }
  if (in_place_ || !titled_) {
    Line(Format("%-10s %6s %10s %10s %6s %9s %12s %9s %8s %10s", "session", "weight", "hbm", "host", "ratio",
                "passes/s", "remote", "window", "checked", "max error"));
    titled_ = true;
  }
  Line(pool_text);
  for (const SessionRow& row : sessions) {
    Line(Format("%-10s %6u %10s %10s %6.3f %9.1f %12s %5.0f KiB %8llu %10.6f", row.name.c_str(), row.weight,
                SizeText(row.hbm_bytes).c_str(), SizeText(row.host_bytes).c_str(), row.ratio, row.passes_per_s,
                RateText(row.remote_bytes_per_s).c_str(), static_cast<double>(row.window_bytes) / 1024,
                static_cast<unsigned long long>(row.checked), row.worst_error));
  }
  std::fflush(stdout);
}

}  // namespace dak::demo
