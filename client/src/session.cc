#include "client/src/session.h"

#include <errno.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"

namespace dak::client {
namespace {

constexpr char kDefaultRuntimeDir[] = "/run/dak";
constexpr absl::Duration kTimeout = absl::Seconds(10);
constexpr absl::Duration kAllocateTimeout = absl::Seconds(120);  // a driver pins host memory at 5 GB/s
constexpr absl::Duration kMoveTimeout = absl::Seconds(600);      // copies give way to everybody's reads
constexpr size_t kMaxNameLength = 128;

std::string RuntimeDir(const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  const char* const fallback = std::getenv("DAK_RUNTIME_DIR");
  return fallback != nullptr && *fallback != '\0' ? fallback : kDefaultRuntimeDir;
}

// The program's name with what the API's names don't allow replaced.
std::string ProgramName() {
  std::string name = program_invocation_short_name;
  if (name.empty()) name = "dak";
  name.resize(std::min(name.size(), kMaxNameLength));
  for (char& c : name) {
    const bool allowed =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string("._/:-").find(c) != std::string::npos;
    if (!allowed) c = '_';
  }
  return name;
}

uint64_t Read(const uint64_t& word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }

absl::Status CheckPage(const v1::PageHeader& header, uint32_t magic, uint64_t session_id, absl::string_view what) {
  if (header.magic != magic || header.version != v1::kControlPageVersion) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat("dakd's ", what, " has layout version ", header.version,
                                                   ", libdak knows version ", v1::kControlPageVersion)),
        Reason("", "VERSION_MISMATCH"));
  }
  if (header.session_id != session_id || header.link_count == 0 || header.link_count > v1::kMaxLinks) {
    return absl::InternalError(absl::StrCat("dakd's ", what, " isn't this session's"));
  }
  return absl::OkStatus();
}

LinkModel LinkFrom(const v1::LinkModel& wire) {
  return {.bandwidth_bytes_per_s = wire.bandwidth_bytes_per_s(),
          .round_trip_ns = wire.round_trip_ns(),
          .cliff_bytes = wire.cliff_bytes(),
          .local_bandwidth_bytes_per_s = wire.local_bandwidth_bytes_per_s(),
          .cliff_floor = wire.cliff_floor()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session(options));
  DAK_RETURN_IF_ERROR(session->Connect());
  return session;
}

absl::Status Session::Connect() {
  runtime_dir_ = RuntimeDir(options_.runtime_dir);
  DAK_ASSIGN_OR_RETURN(connection_, HandleConnection::Connect(absl::StrCat(runtime_dir_, "/handles.sock"), timeout()));
  transport_ = std::make_unique<Transport>(absl::StrCat(runtime_dir_, "/control.sock"));
  v1::OpenSessionRequest request;
  request.set_api_version(kApiVersion);
  request.set_connection_ticket(connection_->greeting().connection_ticket());
  request.set_name(options_.name.empty() ? ProgramName() : options_.name);
  request.set_weight(options_.weight);
  for (Tier tier : kAllTiers) {
    const uint64_t bytes = options_.quota_bytes[TierIndex(tier)];
    if (bytes == 0) continue;
    v1::TierBytes* quota = request.add_quotas();
    quota->set_tier(static_cast<v1::Tier>(tier));
    quota->set_bytes(bytes);
  }
  DAK_RETURN_IF_ERROR(transport_->Call(&v1::SessionService::Stub::OpenSession, request, &opened_, timeout()));
  DAK_RETURN_IF_ERROR(OpenDeviceOf(opened_.device()));
  DAK_RETURN_IF_ERROR(MapPages(opened_.control_ticket()));
  if (opened_.lease_ns() != 0) {
    keeper_ = std::thread([this] { KeepAlive(absl::Nanoseconds(opened_.lease_ns())); });
  }
  return absl::OkStatus();
}

absl::Status Session::OpenDeviceOf(const v1::DeviceInfo& info) {
  DeviceOptions options;
  if (info.kind() == "cuda") {
    options.kind = DeviceOptions::Kind::kCuda;
    options.uuid = info.uuid();
  } else if (info.kind() == "emulated") {
    options.kind = DeviceOptions::Kind::kEmulated;
    options.emulated.link = LinkFrom(info.emulated_link());
    if (info.has_emulated_cxl_link()) options.emulated.cxl_link = LinkFrom(info.emulated_cxl_link());
  } else {
    return absl::FailedPreconditionError(
        absl::StrCat("dakd manages a device of kind ", info.kind(), ", which this libdak doesn't know"));
  }
  auto device = OpenDevice(options);
  if (!device.ok()) {
    return Prefixed(absl::StrCat("dakd's device (", info.name(), " ", info.uuid(), ") can't be used by this process"),
                    device.status());
  }
  device_ = *std::move(device);
  return absl::OkStatus();
}

absl::Status Session::MapPages(const std::string& control_ticket) {
  DAK_ASSIGN_OR_RETURN(std::vector<ReceivedHandle> handles, connection_->Redeem({control_ticket}, timeout()));
  for (ReceivedHandle& handle : handles) {
    if (handle.info.purpose() == v1::Handle::PURPOSE_CONTROL_PAGE) {
      DAK_ASSIGN_OR_RETURN(control_page_,
                           device_->MapSharedPage(std::move(handle.fd), v1::kControlPageBytes, Access::kReadOnly));
    } else if (handle.info.purpose() == v1::Handle::PURPOSE_REPORT_PAGE) {
      DAK_ASSIGN_OR_RETURN(report_page_,
                           device_->MapSharedPage(std::move(handle.fd), v1::kControlPageBytes, Access::kReadWrite));
    }
  }
  if (control_page_ == nullptr || report_page_ == nullptr) {
    return absl::InternalError("dakd sent no control page or no report page");
  }
  DAK_RETURN_IF_ERROR(CheckPage(control_page().header, v1::kControlPageMagic, opened_.session_id(), "control page"));
  return CheckPage(report_page().header, v1::kReportPageMagic, opened_.session_id(), "report page");
}

Session::~Session() {
  if (!closing_.HasBeenNotified()) closing_.Notify();
  if (keeper_.joinable()) keeper_.join();
  StopWatching();
  {
    absl::MutexLock lock(&launch_mutex_);
    launcher_.reset();
  }
  // Unmapped before dakd hears of it: what it then reports as free is free.
  absl::MutexLock control(&control_mutex_);
  pending_move_.reset();
  tensors_.clear();
  segments_.clear();
  control_page_.reset();
  report_page_.reset();
  if (transport_ == nullptr || opened_.session_token().empty() || connection_->PeerIsGone()) return;
  v1::CloseSessionRequest request;
  request.set_session_token(opened_.session_token());
  v1::CloseSessionResponse response;
  // Whatever the answer: the connection ends with this object, and the session with the connection.
  transport_->Call(&v1::SessionService::Stub::CloseSession, request, &response, timeout()).IgnoreError();
}

void Session::KeepAlive(absl::Duration lease) {
  while (!closing_.WaitForNotificationWithTimeout(lease / 3)) {
    if (connection_->PeerIsGone()) return;
    v1::KeepSessionRequest request;
    request.set_session_token(opened_.session_token());
    v1::KeepSessionResponse response;
    // A missed beat is made up for by the next; an ended session shows by its connection.
    transport_->Call(&v1::SessionService::Stub::KeepSession, request, &response, std::min(timeout(), lease / 3))
        .IgnoreError();
  }
}

bool Session::InOwner() const { return getpid() == owner_pid_; }

absl::Status Session::CheckOwner() const {
  if (InOwner()) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError(absl::StrCat("this session belongs to process ", owner_pid_,
                                                               "; a forked child must open its own")),
                    Reason("session", "FORKED"));
}

absl::Duration Session::timeout() const {
  return options_.timeout > absl::ZeroDuration() ? options_.timeout : kTimeout;
}

absl::Duration Session::allocate_timeout() const {
  return options_.timeout > absl::ZeroDuration() ? options_.timeout : kAllocateTimeout;
}

absl::Duration Session::move_timeout() const {
  return options_.timeout > absl::ZeroDuration() ? options_.timeout : kMoveTimeout;
}

absl::Status Session::DaemonGone() const {
  return absl::UnavailableError(
      absl::StrCat("dakd at ", runtime_dir_, " has gone away; mapped memory stays valid until the session is closed"));
}

bool Session::AnswerMayBeLost(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return true;
    default:
      return false;
  }
}

const v1::ControlPage& Session::control_page() const {
  return *static_cast<const v1::ControlPage*>(control_page_->host_pointer());
}

v1::ReportPage& Session::report_page() const { return *static_cast<v1::ReportPage*>(report_page_->host_pointer()); }

SessionStatus Session::GetStatus() const {
  const DeviceDescription& description = device_->description();
  SessionStatus status{.session_id = opened_.session_id(),
                       .device_kind = description.kind,
                       .device_name = description.name,
                       .device_ordinal = description.kind == "cuda" ? description.ordinal : -1,
                       .daemon_version = opened_.daemon_version(),
                       .window_bytes = Read(control_page().links[0].window_bytes),
                       .plan_version = Read(control_page().links[0].plan_version),
                       .remote_bytes = 0,
                       .connected = !connection_->PeerIsGone()};
  for (uint32_t link = 0; link < v1::kMaxLinks; ++link) status.remote_bytes += Read(report_page().links[link].bytes);
  return status;
}

absl::StatusOr<v1::Plan> Session::Plan(v1::PlanPassRequest request) {
  absl::MutexLock control(&control_mutex_);
  request.set_session_token(opened_.session_token());
  v1::Plan plan;
  DAK_RETURN_IF_ERROR(Call(&v1::PlanService::Stub::PlanPass, request, &plan, timeout(), /*changes=*/false));
  if (plan.operations_size() != request.operations_size()) {
    return absl::InternalError(
        absl::StrCat("dakd planned ", plan.operations_size(), " of ", request.operations_size(), " operations"));
  }
  return plan;
}

absl::Status Session::Synchronize(void* stream) {
  absl::MutexLock launch(&launch_mutex_);
  if (launcher_ == nullptr) {
    DAK_ASSIGN_OR_RETURN(launcher_, CreateLauncher(*device_, *control_page_, *report_page_));
  }
  return launcher_->Synchronize(stream);
}

}  // namespace dak::client
