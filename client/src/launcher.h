// Runs operations on the session's device: CUDA kernels, or the reference in the time of the emulated link.
//
// Thread safety: none; the session locks.
// Errors: those of kernels/gemm.h and attention.h; FAILED_PRECONDITION where this build or GPU has no kernels.
#ifndef DAK_CLIENT_SRC_LAUNCHER_H_
#define DAK_CLIENT_SRC_LAUNCHER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "dak/v1/control_page.h"
#include "kernels/attention.h"
#include "kernels/gemm.h"

namespace dak::client {

class Launcher {
 public:
  virtual ~Launcher() = default;
  // `link` is the one that the remote operand is read over (DeviceDescription::LinkOf).
  virtual absl::Status Gemm(const kernels::GemmShape& shape, const kernels::GemmOperands& operands, uint32_t link,
                            void* stream) = 0;
  virtual absl::Status Attention(const kernels::AttentionShape& shape, const kernels::AttentionOperands& operands,
                                 uint32_t link, void* stream) = 0;
  virtual absl::Status Synchronize(void* stream) = 0;
};

// `control` and `report` are the session's pages and must outlive the launcher, as must the device.
absl::StatusOr<std::unique_ptr<Launcher>> CreateLauncher(Device& device, const SharedPage& control,
                                                         const SharedPage& report);

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_LAUNCHER_H_
