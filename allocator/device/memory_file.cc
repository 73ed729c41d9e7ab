#include "allocator/device/memory_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/device_checks.h"
#include "allocator/device/log.h"

namespace dak {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOMEM:
    case ENOSPC:
    case EMFILE:
    case ENFILE:
      return absl::StatusCode::kResourceExhausted;
    case EACCES:
    case EPERM:
      return absl::StatusCode::kPermissionDenied;
    case EBADF:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status SystemError(absl::string_view call, int error) {
  const std::string text = std::error_code(error, std::generic_category()).message();
  return WithReason(absl::Status(CodeOf(error), absl::StrCat(call, " failed: ", text, " (errno ", error, ")")),
                    "DRIVER_ERROR");
}

absl::StatusOr<UniqueFd> CreateMemoryFile(uint64_t bytes) {
  UniqueFd fd(::memfd_create("dak", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return SystemError("memfd_create", errno);
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return SystemError("ftruncate", errno);
  // Without F_SEAL_SEAL whoever gets a writable descriptor could seal writing for everybody.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return SystemError("fcntl(F_ADD_SEALS)", errno);
  }
  if (::fchmod(fd.get(), S_IRUSR) != 0) return SystemError("fchmod", errno);
  return fd;
}

absl::StatusOr<UniqueFd> ReopenReadOnly(int fd) {
  UniqueFd copy(::open(absl::StrCat("/proc/self/fd/", fd).c_str(), O_RDONLY | O_CLOEXEC));
  if (!copy.valid()) return SystemError("open(/proc/self/fd)", errno);
  return copy;
}

absl::StatusOr<UniqueFd> DuplicateFd(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return SystemError("fcntl(F_DUPFD_CLOEXEC)", errno);
  return copy;
}

absl::Status CheckMemoryFile(int fd, uint64_t bytes) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return SystemError("fstat", errno);
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return InvalidField("fd", "isn't a memory file that is sealed against shrinking", "a sealed memfd",
                        "SEALS_MISSING");
  }
  if (static_cast<uint64_t>(info.st_size) != bytes) {
    return InvalidField("bytes", absl::StrCat(bytes, " isn't the size of the memory file"),
                        absl::StrCat("exactly ", info.st_size), "SIZE_MISMATCH");
  }
  return absl::OkStatus();
}

absl::StatusOr<MemoryView> MemoryView::Map(int fd, uint64_t bytes, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* data = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return SystemError("mmap", errno);
  return MemoryView(data, bytes);
}

MemoryView::MemoryView(MemoryView&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MemoryView& MemoryView::operator=(MemoryView&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MemoryView::~MemoryView() {
  if (data_ != nullptr && ::munmap(data_, bytes_) != 0) {
    LogFromDevice(std::string(SystemError("munmap", errno).message()));
  }
}

absl::Status MemoryView::Replace(MemoryView other) {
  if (::mremap(other.data_, other.bytes_, bytes_, MREMAP_MAYMOVE | MREMAP_FIXED, data_) == MAP_FAILED) {
    return SystemError("mremap", errno);
  }
  other.data_ = nullptr;
  return absl::OkStatus();
}

absl::Status MemoryView::MakeReadOnly() {
  if (::mprotect(data_, bytes_, PROT_READ) != 0) return SystemError("mprotect", errno);
  return absl::OkStatus();
}

}  // namespace dak
