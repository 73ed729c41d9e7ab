#include "client/src/launcher.h"

#include <vector>

#include "client/src/launcher_cuda.h"

namespace dak::client {
namespace {

kernels::LinkView ViewOf(const SharedPage& control_page, const SharedPage& report_page, uint32_t link) {
  auto* const control = reinterpret_cast<const v1::ControlPage*>(control_page.device_address());
  auto* const report = reinterpret_cast<v1::ReportPage*>(report_page.device_address());
  return {.control = &control->links[link], .report = &report->links[link]};
}

class EmulatedLauncher final : public Launcher {
 public:
  EmulatedLauncher(const DeviceDescription& device, const SharedPage& control, const SharedPage& report) {
    for (uint32_t link = 0; link < device.link_count(); ++link) {
      links_.push_back({link == 0 ? device.link : *device.cxl_link, ViewOf(control, report, link)});
    }
  }

  absl::Status Gemm(const kernels::GemmShape& shape, const kernels::GemmOperands& operands, uint32_t link,
                    void*) override {
    return kernels::GemmReference(shape, operands, links_[link].view, links_[link].model, /*real_time=*/true).status();
  }
  absl::Status Attention(const kernels::AttentionShape& shape, const kernels::AttentionOperands& operands,
                         uint32_t link, void*) override {
    return kernels::AttentionReference(shape, operands, links_[link].view, links_[link].model, /*real_time=*/true)
        .status();
  }
  absl::Status Synchronize(void*) override { return absl::OkStatus(); }

 private:
  struct Link {
    LinkModel model;
    kernels::LinkView view;
  };
  std::vector<Link> links_;  // by number
};

}  // namespace

absl::StatusOr<std::unique_ptr<Launcher>> CreateLauncher(Device& device, const SharedPage& control,
                                                         const SharedPage& report) {
  const DeviceDescription& description = device.description();
  if (description.kind != "cuda") return std::make_unique<EmulatedLauncher>(description, control, report);
  return CreateCudaLauncher(description.ordinal, ViewOf(control, report, 0));
}

}  // namespace dak::client
