#include "allocator/base/remote_rows.h"

#include <algorithm>
#include <cmath>

namespace dak {

uint64_t RemoteRows(uint64_t rows, double ratio, uint32_t tile_rows) {
  if (ratio <= 0) return 0;
  // The product of a decimal ratio with a row count may come out one ulp above the whole number it means.
  const double exact = ratio * static_cast<double>(rows);
  const auto asked = static_cast<uint64_t>(std::ceil(exact - exact * 1e-12));
  const uint64_t tiles = (asked + tile_rows - 1) / tile_rows;
  return std::min(rows, std::max<uint64_t>(tiles, 1) * tile_rows);
}

}  // namespace dak
