#include "client/src/launcher_cuda.h"

#include <cstdlib>

#include "allocator/base/status_macros.h"
#include "allocator/device/cuda/cuda_context.h"

namespace dak::client {
namespace {

class CudaLauncher final : public Launcher {
 public:
  CudaLauncher(int ordinal, std::unique_ptr<kernels::GemmRunner> runner, SharedContext context,
               const kernels::LinkView& link)
      : ordinal_(ordinal), runner_(std::move(runner)), context_(std::move(context)), link_(link) {}

  absl::Status Gemm(const kernels::GemmShape& shape, const kernels::GemmOperands& operands, uint32_t /*link*/,
                    void* stream) override {
    return runner_->Launch(shape, operands, link_, stream);
  }

  // Its scratch memory is made with the first call: most sessions multiply only.
  absl::Status Attention(const kernels::AttentionShape& shape, const kernels::AttentionOperands& operands,
                         uint32_t /*link*/, void* stream) override {
    if (attention_ == nullptr) {
      DAK_ASSIGN_OR_RETURN(attention_,
                           kernels::CreateCudaAttentionRunner(ordinal_, {.link_counters = runner_->link_counters()}));
    }
    return attention_->Launch(shape, operands, link_, stream);
  }

  absl::Status Synchronize(void* stream) override {
    DAK_ASSIGN_OR_RETURN(const ContextScope scope, ContextScope::Enter(context_));
    return DAK_CUDA_CALL(context_->driver(), cuStreamSynchronize, static_cast<CUstream>(stream));
  }

 private:
  const int ordinal_;
  std::unique_ptr<kernels::GemmRunner> runner_;
  std::unique_ptr<kernels::AttentionRunner> attention_;  // uses the other's counters, so dies first
  const SharedContext context_;
  const kernels::LinkView link_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Launcher>> CreateCudaLauncher(int device_ordinal, const kernels::LinkView& link) {
  DAK_ASSIGN_OR_RETURN(const CudaDriver* const driver, LoadCudaDriver());
  CUdevice device = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(*driver, cuDeviceGet, &device, device_ordinal));
  DAK_ASSIGN_OR_RETURN(SharedContext context, CudaContext::Retain(driver, device));
  const char* const tuning_path = std::getenv("DAK_GEMM_TUNING");
  DAK_ASSIGN_OR_RETURN(auto runner, kernels::CreateCudaGemmRunner(
                                        device_ordinal, {.tuning_path = tuning_path == nullptr ? "" : tuning_path}));
  return std::make_unique<CudaLauncher>(device_ordinal, std::move(runner), std::move(context), link);
}

}  // namespace dak::client
