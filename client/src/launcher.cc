#include "client/src/launcher.h"

#include "client/src/launcher_cuda.h"

namespace dak::client {
namespace {

constexpr uint32_t kLink = 0;  // the one between the session's GPU and its host

kernels::LinkView ViewOf(uint64_t control_page, uint64_t report_page) {
  auto* const control = reinterpret_cast<const v1::ControlPage*>(control_page);
  auto* const report = reinterpret_cast<v1::ReportPage*>(report_page);
  return {.control = &control->links[kLink], .report = &report->links[kLink]};
}

class EmulatedLauncher final : public Launcher {
 public:
  EmulatedLauncher(const LinkModel& model, const kernels::LinkView& link) : model_(model), link_(link) {}

  absl::Status Gemm(const kernels::GemmShape& shape, const kernels::GemmOperands& operands, void*) override {
    return kernels::GemmReference(shape, operands, link_, model_, /*real_time=*/true).status();
  }
  absl::Status Attention(const kernels::AttentionShape& shape, const kernels::AttentionOperands& operands,
                         void*) override {
    return kernels::AttentionReference(shape, operands, link_, model_, /*real_time=*/true).status();
  }
  absl::Status Synchronize(void*) override { return absl::OkStatus(); }

 private:
  const LinkModel model_;
  const kernels::LinkView link_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Launcher>> CreateLauncher(Device& device, const SharedPage& control,
                                                         const SharedPage& report) {
  const DeviceDescription& description = device.description();
  const kernels::LinkView link = ViewOf(control.device_address(), report.device_address());
  if (description.kind != "cuda") return std::make_unique<EmulatedLauncher>(description.link, link);
  return CreateCudaLauncher(description.ordinal, link);
}

}  // namespace dak::client
