// The two pages through which dakd and one session's kernels talk (proto/dak/v1/control_page.h).
//
// The client's descriptor of the control page can't be used to write. What the report page says is read as it stands
// and trusted in nothing. Neither page can be resized (Device::CreateSharedPage), so reading one can't fault the
// daemon.
//
// Thread safety: Write methods have one caller at a time (the congestion loop, under its lock); Read methods may be
// called from any thread.
#ifndef DAK_DAEMON_SESSION_PAGES_H_
#define DAK_DAEMON_SESSION_PAGES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "daemon/session/tickets.h"
#include "dak/v1/control_page.h"

namespace dak::daemon {

struct LinkReportValues {
  uint64_t bytes = 0;
  uint64_t round_trip_ns = 0;
  uint64_t round_trips = 0;
  uint64_t inflight_bytes = 0;
  uint64_t inflight_peak_bytes = 0;
  uint64_t passes = 0;

  friend bool operator==(const LinkReportValues&, const LinkReportValues&) = default;
};

// A page's words as they stand.
LinkReportValues ReadReport(const v1::LinkReport& report);

class SessionPages {
 public:
  // Makes both pages and the handles for the client.
  static absl::StatusOr<std::unique_ptr<SessionPages>> Create(Device& device, uint64_t session_id, uint32_t link_count,
                                                              std::vector<HandleGrant>* handles);

  LinkReportValues ReadReport(uint32_t link) const { return daemon::ReadReport(*report(link)); }
  // Where it reads that, as long as these pages exist: for who reads many of them, one after the other.
  const v1::LinkReport* report(uint32_t link) const { return &report_page_->links[link]; }

  // Writes only what changed; a changed window starts a new epoch.
  void WriteWindow(uint32_t link, uint64_t window_bytes);
  void WriteNeighbourInflight(uint32_t link, uint64_t bytes);
  void WritePlanVersion(uint64_t version);
  // Its one caller is the session's operation under way.
  void WriteExchange(uint64_t number);
  uint64_t ReadWindow(uint32_t link) const;
  uint64_t ReadWindows() const;  // of all links together

 private:
  SessionPages(std::unique_ptr<SharedPage> control, std::unique_ptr<SharedPage> report, uint32_t link_count)
      : control_(std::move(control)),
        report_(std::move(report)),
        control_page_(static_cast<v1::ControlPage*>(control_->host_pointer())),
        report_page_(static_cast<const v1::ReportPage*>(report_->host_pointer())),
        link_count_(link_count) {}

  std::unique_ptr<SharedPage> control_;
  std::unique_ptr<SharedPage> report_;
  v1::ControlPage* control_page_;
  const v1::ReportPage* report_page_;
  uint32_t link_count_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_PAGES_H_
