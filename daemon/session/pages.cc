#include "daemon/session/pages.h"

#include <utility>

#include "allocator/base/status_macros.h"
#include "allocator/device/memory_file.h"

namespace dak::daemon {
namespace {

uint64_t Load(const uint64_t& word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }
void Store(uint64_t& word, uint64_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }

v1::PageHeader& HeaderOf(const SharedPage& page) { return *static_cast<v1::PageHeader*>(page.host_pointer()); }

void WriteHeader(v1::PageHeader& header, uint32_t magic, uint64_t session_id, uint32_t link_count) {
  header.version = v1::kControlPageVersion;
  header.session_id = session_id;
  header.link_count = link_count;
  header.page_bytes = v1::kControlPageBytes;
  header.magic = magic;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionPages>> SessionPages::Create(Device& device, uint64_t session_id,
                                                                   uint32_t link_count,
                                                                   std::vector<HandleGrant>* handles) {
  HandleGrant control_handle = {.purpose = HandleGrant::Purpose::kControlPage,
                                .kind = HandleKind::kMemfd,
                                .bytes = v1::kControlPageBytes,
                                .read_only = true};
  HandleGrant report_handle = {.purpose = HandleGrant::Purpose::kReportPage,
                               .kind = HandleKind::kMemfd,
                               .bytes = v1::kControlPageBytes,
                               .read_only = false};
  UniqueFd control_fd;
  DAK_ASSIGN_OR_RETURN(auto control, device.CreateSharedPage(v1::kControlPageBytes, &control_fd));
  DAK_ASSIGN_OR_RETURN(auto report, device.CreateSharedPage(v1::kControlPageBytes, &report_handle.fd));
  WriteHeader(HeaderOf(*control), v1::kControlPageMagic, session_id, link_count);
  WriteHeader(HeaderOf(*report), v1::kReportPageMagic, session_id, link_count);
  DAK_ASSIGN_OR_RETURN(control_handle.fd, ReopenReadOnly(control_fd.get()));
  handles->push_back(std::move(control_handle));
  handles->push_back(std::move(report_handle));
  return std::unique_ptr<SessionPages>(new SessionPages(std::move(control), std::move(report), link_count));
}

LinkReportValues ReadReport(const v1::LinkReport& report) {
  return {.bytes = Load(report.bytes),
          .round_trip_ns = Load(report.round_trip_ns),
          .round_trips = Load(report.round_trips),
          .inflight_bytes = Load(report.inflight_bytes),
          .inflight_peak_bytes = Load(report.inflight_peak_bytes),
          .passes = Load(report.passes)};
}

void SessionPages::WriteWindow(uint32_t link, uint64_t window_bytes) {
  v1::LinkControl& control = control_page_->links[link];
  if (control.window_bytes == window_bytes) return;
  Store(control.window_bytes, window_bytes);
  Store(control.epoch, control.epoch + 1);
}

void SessionPages::WriteNeighbourInflight(uint32_t link, uint64_t bytes) {
  Store(control_page_->links[link].neighbour_inflight_bytes, bytes);
}

void SessionPages::WritePlanVersion(uint64_t version) {
  for (uint32_t link = 0; link < link_count_; ++link) {
    Store(control_page_->links[link].plan_version, version);
  }
}

void SessionPages::WriteExchange(uint64_t number) { Store(control_page_->links[0].exchange, number); }

uint64_t SessionPages::ReadWindows() const {
  uint64_t sum = 0;
  for (uint32_t link = 0; link < link_count_; ++link) sum += ReadWindow(link);
  return sum;
}

uint64_t SessionPages::ReadWindow(uint32_t link) const { return Load(control_page_->links[link].window_bytes); }

}  // namespace dak::daemon
