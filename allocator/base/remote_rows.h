// How many of a tensor's rows a split at a ratio makes remote. Pure, thread-safe.
#ifndef DAK_ALLOCATOR_BASE_REMOTE_ROWS_H_
#define DAK_ALLOCATOR_BASE_REMOTE_ROWS_H_

#include <cstdint>

namespace dak {

// `ratio` of the rows rounded up to whole tiles of `tile_rows`, at most all; 0 for ratio 0.
uint64_t RemoteRows(uint64_t rows, double ratio, uint32_t tile_rows);

}  // namespace dak

#endif  // DAK_ALLOCATOR_BASE_REMOTE_ROWS_H_
