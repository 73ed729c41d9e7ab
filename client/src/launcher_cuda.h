// The launcher for CUDA devices, apart so that a build without the toolkit leaves it out.
//
// Thread safety and errors: as Launcher.
#ifndef DAK_CLIENT_SRC_LAUNCHER_CUDA_H_
#define DAK_CLIENT_SRC_LAUNCHER_CUDA_H_

#include <memory>

#include "absl/status/statusor.h"
#include "client/src/launcher.h"

namespace dak::client {

// FAILED_PRECONDITION in a build without CUDA.
absl::StatusOr<std::unique_ptr<Launcher>> CreateCudaLauncher(int device_ordinal, const kernels::LinkView& link);

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_LAUNCHER_CUDA_H_
