#include "daemon/session/session_manager.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/clock.h"

namespace dak::daemon {
namespace {

absl::Status BadConnectionTicket() {
  return WithDetail(absl::UnauthenticatedError("connection_ticket: unknown, or of another user's connection"),
                    {.field = "connection_ticket", .reason = "BAD_TICKET"});
}

absl::Status UnknownSession() {
  return WithDetail(absl::UnauthenticatedError("session_token: unknown, of another user, or the session has ended"),
                    {.field = "session_token", .reason = "UNKNOWN_SESSION"});
}

}  // namespace

SessionManager::SessionManager(SessionEnvironment* environment, CongestionLoop* congestion, uint64_t lease_ns)
    : environment_(environment), congestion_(congestion), lease_ns_(lease_ns) {
  reaper_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "dak-reaper");
    Reap();
  });
}

SessionManager::~SessionManager() {
  Shutdown();
  {
    absl::MutexLock lock(&mutex_);
    stop_reaper_ = true;
  }
  reaper_.join();
}

absl::StatusOr<SessionManager::Connection> SessionManager::Connect(const Peer& peer) {
  absl::MutexLock lock(&mutex_);
  if (shutting_down_) return absl::UnavailableError("the daemon is shutting down");
  if (connections_.size() >= environment_->limits.max_connections) {
    return WithDetail(
        absl::ResourceExhaustedError("too many connections"),
        {.reason = "TOO_MANY_CONNECTIONS", .limit = absl::StrCat("at most ", environment_->limits.max_connections)});
  }
  Secret secret = Secret::Random();
  const uint64_t id = next_connection_id_++;
  while (!connection_tickets_.Insert(secret, id)) secret = Secret::Random();
  ConnectionState& state = connections_[id];
  state.peer = peer;
  state.ticket = secret.ToString();
  return Connection{.id = id, .ticket = state.ticket};
}

void SessionManager::Disconnect(uint64_t connection_id) {
  SessionPtr session;
  {
    absl::MutexLock lock(&mutex_);
    auto it = connections_.find(connection_id);
    if (it == connections_.end()) return;
    session = std::move(it->second.session);
    connection_tickets_.Erase(it->second.ticket);
    connections_.erase(it);
  }
  if (session == nullptr || !BeginEnd(session, Ending::kConnection)) return;
  absl::MutexLock lock(&mutex_);
  reap_queue_.push_back(std::move(session));
}

absl::StatusOr<std::vector<HandleGrant>> SessionManager::Redeem(uint64_t connection_id,
                                                                absl::Span<const std::string> tickets) {
  if (tickets.empty() || tickets.size() > kMaxTicketsPerRequest) {
    return InvalidField("tickets", absl::StrCat("has ", tickets.size(), " entries"),
                        absl::StrCat("1 to ", kMaxTicketsPerRequest));
  }
  SessionPtr session;
  {
    absl::MutexLock lock(&mutex_);
    auto it = connections_.find(connection_id);
    if (it != connections_.end()) session = it->second.session;
  }
  if (session == nullptr) {
    return WithDetail(absl::FailedPreconditionError("this connection has no session"), {.reason = "NO_SESSION"});
  }
  return session->Redeem(tickets);
}

void SessionManager::Deliver(const SessionPtr& session, std::vector<Grant>* grants) const {
  const uint64_t connection_id = session->identity().connection_id;
  session->Deliver(grants, [&](absl::Span<const HandleGrant> handles) { return send_(connection_id, handles); });
}

absl::StatusOr<uint64_t> SessionManager::Claim(const OpenRequest& request, const Peer& caller) {
  absl::MutexLock lock(&mutex_);
  if (shutting_down_) return absl::UnavailableError("the daemon is shutting down");
  const uint64_t* id = connection_tickets_.Find(request.connection_ticket);
  if (id == nullptr) return BadConnectionTicket();
  ConnectionState& connection = connections_[*id];
  if (connection.peer.uid != caller.uid) return BadConnectionTicket();
  if (connection.used) {
    return WithDetail(absl::AlreadyExistsError("connection_ticket: the connection has, or had, a session"),
                      {.field = "connection_ticket", .reason = "SESSION_EXISTS"});
  }
  if (sessions_.size() + opening_ >= environment_->limits.max_sessions) {
    return WithDetail(
        absl::ResourceExhaustedError("too many sessions"),
        {.reason = "TOO_MANY_SESSIONS", .limit = absl::StrCat("at most ", environment_->limits.max_sessions)});
  }
  connection.used = true;
  ++opening_;
  return *id;
}

void SessionManager::Unclaim(uint64_t connection_id) {
  absl::MutexLock lock(&mutex_);
  --opening_;
  auto it = connections_.find(connection_id);
  if (it != connections_.end()) it->second.used = false;
}

absl::StatusOr<SessionPtr> SessionManager::MakeSession(const OpenRequest& request, const Peer& peer,
                                                       uint64_t connection_id, std::vector<HandleGrant>* pages) {
  SessionIdentity identity = {.id = 0,
                              .name = request.name,
                              .weight = request.weight,
                              .pid = peer.pid,
                              .uid = peer.uid,
                              .connection_id = connection_id,
                              .token = {},
                              .opened_ns = MonotonicNs()};
  {
    absl::MutexLock lock(&mutex_);
    identity.id = next_session_id_++;
  }
  DAK_ASSIGN_OR_RETURN(std::shared_ptr<SessionPages> shared,
                       SessionPages::Create(*environment_->device, identity.id, congestion_->link_count(), pages));
  DAK_RETURN_IF_ERROR(environment_->ledger->OpenSession(identity.id, request.quota_bytes));
  absl::Status added = congestion_->Add(identity.id, identity.name, identity.weight, shared);
  if (!added.ok()) {
    environment_->ledger->CloseSession(identity.id).IgnoreError();  // it holds nothing yet
    return added;
  }
  identity.token = Secret::Random().ToString();
  return std::make_shared<Session>(
      environment_, std::move(identity), std::move(shared),
      [this](const Session& session, const TierArray& freed) { OnClosed(session, freed); });
}

absl::StatusOr<OpenResult> SessionManager::Open(const OpenRequest& request, const Peer& caller) {
  DAK_ASSIGN_OR_RETURN(const uint64_t connection_id, Claim(request, caller));
  std::vector<HandleGrant> pages;
  absl::StatusOr<SessionPtr> made = MakeSession(request, caller, connection_id, &pages);
  if (!made.ok()) {
    Unclaim(connection_id);
    return made.status();
  }
  OpenResult result = {.session = *made, .control_ticket = (*made)->AddTicket(std::move(pages))};
  bool connected = false;
  {
    absl::MutexLock lock(&mutex_);
    --opening_;
    sessions_[result.session->identity().id] = result.session;
    auto it = connections_.find(connection_id);
    connected = it != connections_.end() && !shutting_down_;
    if (connected) {
      it->second.session = result.session;
      tokens_.Insert(Secret::FromBytes(result.session->identity().token), result.session);
    }
  }
  environment_->events->Append(v1::Event::SESSION_OPENED, result.session->identity().id, request.name, "");
  if (!connected) {
    if (BeginEnd(result.session, Ending::kConnection)) result.session->Close();
    return absl::UnavailableError("the handle connection ended while the session was opened");
  }
  return result;
}

absl::StatusOr<SessionPtr> SessionManager::Authenticate(absl::string_view token, const Peer& caller) {
  SessionPtr session;
  {
    absl::MutexLock lock(&mutex_);
    SessionPtr* found = tokens_.Find(token);
    if (found == nullptr || (*found)->identity().uid != caller.uid) return UnknownSession();
    session = *found;
  }
  if (lease_ns_ != 0) session->Touch(MonotonicNs());
  return session;
}

bool SessionManager::BeginEnd(const SessionPtr& session, Ending ending) {
  absl::MutexLock lock(&mutex_);
  // A session that is gone from the list has ended already, and its entry in endings_ with it.
  if (!sessions_.contains(session->identity().id)) return false;
  if (!endings_.emplace(session->identity().id, ending).second) return false;
  tokens_.Erase(session->identity().token);
  return true;
}

TierArray SessionManager::Close(const SessionPtr& session) {
  if (BeginEnd(session, Ending::kByRequest)) session->Close();
  return session->AwaitClosed();
}

void SessionManager::OnClosed(const Session& session, const TierArray& freed) {
  const SessionIdentity& identity = session.identity();
  congestion_->Remove(identity.id);
  if (on_gone_) on_gone_(identity.id);
  Ending ending = Ending::kByRequest;
  {
    absl::MutexLock lock(&mutex_);
    if (auto it = endings_.find(identity.id); it != endings_.end()) {
      ending = it->second;
      endings_.erase(it);
    }
    sessions_.erase(identity.id);
    auto connection = connections_.find(identity.connection_id);
    if (connection != connections_.end()) connection->second.session = nullptr;
  }
  if (ending == Ending::kConnection || ending == Ending::kLease) {
    const std::string reason = ending == Ending::kLease ? "lease" : "connection";
    environment_->metrics->CountReclaimedSession(reason, freed);
    environment_->events->Append(v1::Event::SESSION_LOST, identity.id, identity.name,
                                 absl::StrCat("its ", reason, " ended"), &freed);
  } else {
    environment_->events->Append(v1::Event::SESSION_CLOSED, identity.id, identity.name,
                                 ending == Ending::kShutdown ? "the daemon shuts down" : "", &freed);
  }
}

SessionPtr SessionManager::Find(uint64_t session_id) const {
  absl::MutexLock lock(&mutex_);
  auto it = sessions_.find(session_id);
  return it == sessions_.end() ? nullptr : it->second;
}

std::vector<SessionPtr> SessionManager::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<SessionPtr> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(session);
  return all;
}

std::vector<SessionPtr> SessionManager::TakeExpired() {
  std::vector<SessionPtr> expired;
  const uint64_t now_ns = MonotonicNs();
  for (const auto& [id, session] : sessions_) {
    if (endings_.contains(id) || now_ns < session->touched_ns() + lease_ns_) continue;
    expired.push_back(session);
  }
  return expired;
}

void SessionManager::Reap() {
  auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_reaper_ || !reap_queue_.empty(); };
  const absl::Duration patience = lease_ns_ == 0 ? absl::InfiniteDuration() : absl::Nanoseconds(lease_ns_ / 4);
  while (true) {
    std::vector<SessionPtr> lost;
    std::vector<SessionPtr> expired;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&work), patience);
      lost.swap(reap_queue_);
      if (lost.empty() && stop_reaper_) return;
      if (lease_ns_ != 0) expired = TakeExpired();
    }
    for (const SessionPtr& session : lost) session->Close();
    for (const SessionPtr& session : expired) {
      if (!BeginEnd(session, Ending::kLease)) continue;
      // Before the session is gone from the list: Shutdown returns when the list is empty, and nothing is called then.
      if (on_expired_) on_expired_(session->identity().connection_id);
      session->Close();
    }
  }
}

void SessionManager::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    shutting_down_ = true;
  }
  for (const SessionPtr& session : List()) {
    if (BeginEnd(session, Ending::kShutdown)) session->Close();
  }
  auto all_back = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return sessions_.empty() && opening_ == 0 && reap_queue_.empty();
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&all_back));
}

}  // namespace dak::daemon
