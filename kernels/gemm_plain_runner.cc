#include "kernels/gemm_plain_runner.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "kernels/cuda_support.h"
#include "kernels/gemm_operands.h"
#include "kernels/gemm_plain_launch.h"
#include "kernels/gemm_plan.h"

namespace dak::kernels {
namespace {

class PlainGemmRunner final : public GemmRunner {
 public:
  static absl::StatusOr<std::unique_ptr<GemmRunner>> Create(int ordinal) {
    ScopedDevice device(ordinal);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    auto runner = std::unique_ptr<PlainGemmRunner>(new PlainGemmRunner(ordinal));
    DAK_RETURN_IF_ERROR(runner->Initialise());
    return runner;
  }

  absl::Status Launch(const GemmShape& shape, const GemmOperands& operands, const LinkView& link,
                      void* stream) override {
    DAK_RETURN_IF_ERROR(CheckGemm(shape));
    if (shape.batch > kMaxBatch) {
      return InvalidField("batch", absl::StrCat(shape.batch, " is out of range"),
                          absl::StrCat("1 to ", kMaxBatch, " on this device"));
    }
    DAK_RETURN_IF_ERROR(CheckOperands(shape, operands, /*need_maps=*/false));
    ScopedDevice device(ordinal_);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    PlainLaunch launch;
    launch.batch = shape.batch;
    launch.n = shape.n;
    launch.k = shape.k;
    launch.local_rows = shape.local_rows;
    launch.f16 = shape.element == ElementType::kF16;
    launch.x = reinterpret_cast<const void*>(operands.x);
    launch.w_local = reinterpret_cast<const void*>(operands.w_local);
    launch.w_remote = reinterpret_cast<const void*>(operands.w_remote);
    launch.y = reinterpret_cast<void*>(operands.y);
    launch.epilogue = {reinterpret_cast<const void*>(operands.epilogue.bias),
                       reinterpret_cast<const void*>(operands.epilogue.residual),
                       operands.epilogue.activation == GemmActivation::kSwiGlu};
    launch.control = link.control;
    launch.report = link.report;
    launch.link = link_.get();
    launch.multiprocessors = multiprocessors_;
    launch.ns_per_clock = ns_per_clock_;
    return FromCuda(LaunchPlainGemm(launch, static_cast<cudaStream_t>(stream)), "launching the plain GEMM");
  }

 private:
  explicit PlainGemmRunner(int ordinal) : ordinal_(ordinal) {}

  absl::Status Initialise() {
    int major = 0;
    int multiprocessors = 0;
    int clock_khz = 0;
    const auto query = [&](int* value, cudaDeviceAttr attribute) {
      return FromCuda(cudaDeviceGetAttribute(value, attribute, ordinal_), "cudaDeviceGetAttribute");
    };
    DAK_RETURN_IF_ERROR(query(&major, cudaDevAttrComputeCapabilityMajor));
    if (major < 8) {
      return WithDetail(absl::FailedPreconditionError(absl::StrCat("device ", ordinal_, " is of architecture ", major,
                                                                   ".x; kernels are for 8.0 and up")),
                        {.field = {}, .reason = "ARCHITECTURE_UNSUPPORTED", .limit = "8.0"});
    }
    DAK_RETURN_IF_ERROR(query(&multiprocessors, cudaDevAttrMultiProcessorCount));
    DAK_RETURN_IF_ERROR(query(&clock_khz, cudaDevAttrClockRate));
    multiprocessors_ = static_cast<uint32_t>(multiprocessors);
    ns_per_clock_ = 1e6f / static_cast<float>(clock_khz);
    DAK_RETURN_IF_ERROR(FromCuda(PreparePlainGemm(), "preparing the plain GEMM"));
    DAK_ASSIGN_OR_RETURN(link_, Allocate<LinkCounters>(1, 0));
    return FromCuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  const int ordinal_;
  uint32_t multiprocessors_ = 0;
  float ns_per_clock_ = 0;
  DeviceArray<LinkCounters> link_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GemmRunner>> CreatePlainGemmRunner(int device_ordinal) {
  return PlainGemmRunner::Create(device_ordinal);
}

}  // namespace dak::kernels
