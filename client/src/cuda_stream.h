// Waiting for a stream of the driver API, with libcuda opened at run time.
//
// Thread safety: Synchronize may be called from any thread.
// Errors: NOT_FOUND where there is no driver; INTERNAL with reason DRIVER_ERROR and the driver's name for the code.
// Source: CUDA Driver API, "Stream Management" and "Primary Context Management".
#ifndef DAK_CLIENT_SRC_CUDA_STREAM_H_
#define DAK_CLIENT_SRC_CUDA_STREAM_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dak::client {

class CudaStreams {
 public:
  virtual ~CudaStreams() = default;
  static absl::StatusOr<std::unique_ptr<CudaStreams>> Open(int device_ordinal);
  // Waits for all that is enqueued on `stream` (a CUstream of the device's primary context; null: the default stream).
  virtual absl::Status Synchronize(void* stream) = 0;
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_CUDA_STREAM_H_
