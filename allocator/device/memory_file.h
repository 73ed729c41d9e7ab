// Anonymous memory that crosses processes: memfds. Nothing here has a name in a file system, so nothing survives its
// last descriptor and mapping, whatever kills the process.
//
// A memory file can't be resized (so a reader can't be made to fault by truncation) and takes no further seals. Its
// mode is 0400: a read-only descriptor can't be turned into a writable one through /proc by another user.
//
// Thread safety: functions are thread-safe; a MemoryView is one owner's.
// Errors: RESOURCE_EXHAUSTED for no memory or no descriptors, PERMISSION_DENIED for write access through a read-only
// descriptor, INVALID_ARGUMENT for a descriptor that isn't a sealed memory file of the stated size, else INTERNAL; the
// message names the call and errno, the reason is DRIVER_ERROR (SEALS_MISSING, SIZE_MISMATCH for the descriptor's
// faults).
#ifndef DAK_ALLOCATOR_DEVICE_MEMORY_FILE_H_
#define DAK_ALLOCATOR_DEVICE_MEMORY_FILE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "allocator/base/unique_fd.h"

namespace dak {

// A zeroed memory file of `bytes`, read-write, close-on-exec, sealed as above. Pages are made when first touched.
absl::StatusOr<UniqueFd> CreateMemoryFile(uint64_t bytes);

// Another descriptor of the same file, read-only: mapping it for writing fails. Close-on-exec.
absl::StatusOr<UniqueFd> ReopenReadOnly(int fd);
// Another descriptor with the same access. Close-on-exec.
absl::StatusOr<UniqueFd> DuplicateFd(int fd);

// OK if `fd` is a memory file of exactly `bytes` that can't shrink.
absl::Status CheckMemoryFile(int fd, uint64_t bytes);

// A memory file mapped shared into this process. Unmaps on destruction; the descriptor may be closed before.
class MemoryView {
 public:
  static absl::StatusOr<MemoryView> Map(int fd, uint64_t bytes, bool writable);
  MemoryView() = default;
  MemoryView(MemoryView&& other) noexcept;
  MemoryView& operator=(MemoryView&& other) noexcept;
  ~MemoryView();

  void* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  absl::Status MakeReadOnly();
  // Takes `other`, of as many bytes, to this view's address. If it fails, both stay where they are.
  absl::Status Replace(MemoryView other);

 private:
  MemoryView(void* data, uint64_t bytes) : data_(data), bytes_(bytes) {}
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// The status of a system call that failed with `error`: see the head of this file.
absl::Status SystemError(absl::string_view call, int error);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_MEMORY_FILE_H_
