// A session that lets itself be taken out of HBM.
//
// While it is suspended nobody here touches its memory, and a thread watches the control page for memory that dakd
// wants behind the session's addresses. The exchange is all or nothing: dakd hands out the old memory beside the new,
// so that what was exchanged before a failure can go back.
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"

namespace dak::client {
namespace {

// What an idle process costs: a load of one word every few milliseconds.
constexpr absl::Duration kWatchInterval = absl::Milliseconds(5);
constexpr absl::Duration kRetryInterval = absl::Milliseconds(50);

uint64_t Read(const uint64_t& word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }

}  // namespace

absl::Status Session::CheckActive() const {
  if (!suspended_.load(std::memory_order_acquire)) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError("the session is suspended: resume it first"),
                    Reason("session", "SUSPENDED"));
}

absl::Status Session::Suspend() {
  absl::MutexLock turn(&suspend_mutex_);
  if (suspended_) return absl::OkStatus();
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  if (pending_move_ != nullptr) {
    return WithDetail(absl::FailedPreconditionError("a move is prepared: commit or abort it first"),
                      Reason("", "MOVE_PENDING"));
  }
  {
    // From here on whoever comes is refused, and whoever was there has left.
    absl::MutexLock launch(&launch_mutex_);
    absl::WriterMutexLock use(&use_mutex_);
    DAK_RETURN_IF_ERROR(device_->Synchronize());
    suspended_ = true;
  }
  seen_exchange_ = Read(control_page().links[0].exchange);
  v1::SuspendSessionRequest request;
  request.set_session_token(opened_.session_token());
  v1::SuspendSessionResponse response;
  const absl::Status status =
      Call(&v1::MigrationService::Stub::SuspendSession, request, &response, timeout(), /*changes=*/false);
  if (!status.ok()) {
    // If dakd believes otherwise, nothing comes of it: nobody here would take an exchange.
    suspended_ = false;
    return status;
  }
  stop_watching_ = std::make_unique<absl::Notification>();
  watcher_ = std::thread([this] { WatchExchanges(); });
  return absl::OkStatus();
}

absl::Status Session::Resume() {
  absl::MutexLock turn(&suspend_mutex_);
  if (!suspended_) return absl::OkStatus();
  // Without the control mutex: the watcher carries out what this call waits for.
  if (!connection_->PeerIsGone()) {
    v1::ResumeSessionRequest request;
    request.set_session_token(opened_.session_token());
    v1::ResumeSessionResponse response;
    const absl::Status status =
        transport_->Call(&v1::MigrationService::Stub::ResumeSession, request, &response, move_timeout());
    // With the daemon gone the session goes on where it is.
    if (!status.ok() && !connection_->PeerIsGone()) return status;
  }
  StopWatching();
  suspended_ = false;
  return absl::OkStatus();
}

void Session::StopWatching() {
  if (!watcher_.joinable()) return;
  stop_watching_->Notify();
  watcher_.join();
}

Session::Residence Session::GetResidence() const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [id, segment] : segments_) {
    if (segment.home.has_value() && segment.mapping != nullptr && segment.mapping->tier() != *segment.home) {
      return Residence::kDemoted;
    }
  }
  return suspended_ ? Residence::kSuspended : Residence::kActive;
}

void Session::WatchExchanges() {
  while (!stop_watching_->WaitForNotificationWithTimeout(kWatchInterval)) {
    const uint64_t announced = Read(control_page().links[0].exchange);
    if (announced == seen_exchange_) continue;
    seen_exchange_ = announced;
    v1::TakeExchangeRequest request;
    request.set_session_token(opened_.session_token());
    v1::TakeExchangeResponse exchange;
    // Refused if it was withdrawn meanwhile.
    if (!transport_->Call(&v1::MigrationService::Stub::TakeExchange, request, &exchange, timeout()).ok()) continue;
    ReportExchange(exchange.exchange_id(), CarryOut(exchange));
  }
}

// dakd waits for the word, and keeps both memories until it has it.
void Session::ReportExchange(uint64_t exchange_id, const absl::Status& outcome) {
  v1::FinishExchangeRequest request;
  request.set_session_token(opened_.session_token());
  request.set_exchange_id(exchange_id);
  request.set_code(static_cast<int>(outcome.code()));
  request.set_message(std::string(outcome.message()));
  v1::FinishExchangeResponse response;
  do {
    const absl::Status told =
        transport_->Call(&v1::MigrationService::Stub::FinishExchange, request, &response, timeout());
    if (told.ok() || connection_->PeerIsGone() || !AnswerMayBeLost(told)) return;
  } while (!stop_watching_->WaitForNotificationWithTimeout(kRetryInterval));
}

absl::Status Session::CarryOut(const v1::TakeExchangeResponse& exchange) {
  std::vector<std::string> tickets;
  for (const v1::SegmentGrant& grant : exchange.segments()) tickets.push_back(grant.ticket());
  DAK_ASSIGN_OR_RETURN(std::vector<ReceivedHandle> handles, connection_->Redeem(tickets, timeout()));
  if (handles.size() != 2 * tickets.size()) {
    return absl::InternalError(
        absl::StrCat("dakd sent ", handles.size(), " descriptors for ", tickets.size(), " exchanges"));
  }
  absl::WriterMutexLock use(&use_mutex_);
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < tickets.size(); ++i) {
    const absl::Status replaced = ReplaceSegment(handles[2 * i]);
    if (replaced.ok()) continue;
    // Those before go back; the one that failed is as it was, or lost.
    if (DetailOf(replaced).reason == "MAPPING_LOST") LoseSegment(handles[2 * i].info.segment_id());
    for (size_t j = 0; j < i; ++j) {
      if (!ReplaceSegment(handles[2 * j + 1]).ok()) LoseSegment(handles[2 * j + 1].info.segment_id());
    }
    return replaced;
  }
  return absl::OkStatus();
}

absl::Status Session::ReplaceSegment(ReceivedHandle& handle) {
  const uint64_t segment_id = handle.info.segment_id();
  const auto found = segments_.find(segment_id);
  if (found == segments_.end() || found->second.mapping == nullptr) {
    return absl::InternalError(absl::StrCat("dakd exchanges segment ", segment_id, ", which isn't mapped here"));
  }
  Mapping& mapping = *found->second.mapping;
  if (!found->second.home.has_value()) found->second.home = mapping.tier();
  const auto kind = static_cast<HandleKind>(handle.info.kind());
  DAK_RETURN_IF_ERROR(device_->Replace(mapping, {.fd = std::move(handle.fd),
                                                 .kind = kind,
                                                 .tier = static_cast<Tier>(handle.info.tier()),
                                                 .bytes = handle.info.bytes()}));
  KeepFromChildren(mapping, kind);
  return absl::OkStatus();
}

// Nothing is behind its addresses: its tensors can only be freed.
void Session::LoseSegment(uint64_t segment_id) {
  for (const auto& [key, tensor] : tensors_) {
    for (const Part& part : tensor->parts()) {
      if (part.segment_id == segment_id) tensor->SetUnmapped();
    }
  }
}

}  // namespace dak::client
