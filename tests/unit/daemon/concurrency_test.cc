// Many clients at once on everything below gRPC: sessions, publications, tickets over real sockets, the congestion
// loop, lists and scrapes. For the thread sanitizer above all, which sees all of this but not into gRPC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "daemon/ipc/handle_server.h"
#include "daemon/snapshot.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

// A daemon without its RPC layer.
class Core {
 public:
  Core() {
    environment_.device = &device_;
    environment_.ledger = &ledger_;
    environment_.events = &events_;
    environment_.publications = &publications_;
    environment_.metrics = &metrics_;
    environment_.congestion = &congestion_;
    service_.environment = &environment_;
    service_.congestion = &congestion_;
    service_.sessions = &sessions_;
    auto listener = UnixListener::Bind(directory_.path() + "/handles.sock", SOCK_SEQPACKET, {});
    EXPECT_TRUE(listener.ok()) << listener.status();
    handles_ = std::make_unique<HandleServer>(*std::move(listener), PeerPolicy({}, 0), "test", &sessions_);
    EXPECT_TRUE(handles_->Start().ok());
    congestion_.Start();
  }
  void Stop() {
    handles_->Stop();
    sessions_.Shutdown();
    congestion_.Stop();
  }
  TierArray DeviceUsage() const {
    TierArray usage{};
    for (const Tier tier : kAllTiers) usage[TierIndex(tier)] = device_.used_bytes(tier);
    return usage;
  }

  const std::string& path() const { return directory_.path(); }
  SessionManager& sessions() { return sessions_; }
  Publications& publications() { return publications_; }
  EventLog& events() { return events_; }
  Ledger& ledger() { return ledger_; }
  monitoring::Snapshot Snapshot() const { return TakeSnapshot(service_); }

 private:
  static constexpr TierArray kPools = {256 * kMiB, 256 * kMiB, 0};
  TempDir directory_;
  EmulatedDevice device_{EmulatedDeviceOptions{.tier_bytes = kPools, .link = {}}};
  Ledger ledger_{kPools};
  ServiceContext service_;
  monitoring::Metrics metrics_{[] { return monitoring::Snapshot(); }};
  EventLog events_{64, {}};
  Publications publications_{&ledger_, &events_, 64};
  congestion::Parameters parameters_{.interval_ns = 100'000};
  CongestionLoop congestion_{std::vector<NodeLink>(1), parameters_, &events_, &metrics_};
  SessionEnvironment environment_;
  SessionManager sessions_{&environment_, &congestion_, 0};
  std::unique_ptr<HandleServer> handles_;
};

// One client's life after the other, with what it does chosen by a seed.
class Client {
 public:
  Client(Core* core, uint64_t seed) : core_(*core), random_(seed) {}

  void LiveOnce() {
    HandleConnection connection(core_.path());
    OpenRequest request = {.connection_ticket = connection.Receive().reply.connection_ticket(),
                           .name = "client",
                           .weight = 100,
                           .quota_bytes = {kNoLimit, kNoLimit, kNoLimit}};
    const auto opened = core_.sessions().Open(request, peer_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    const auto session = core_.sessions().Authenticate(opened->session->identity().token, peer_);
    ASSERT_TRUE(session.ok());
    EXPECT_EQ(connection.Fetch({opened->control_ticket}).fds.size(), 2u);
    for (int step = 0; step < 6; ++step) Act(**session, connection);
    End(*session, connection);
  }

 private:
  // What is refused (published meanwhile, no room) changes nothing; what is prepared ends one way or the other.
  void MoveAndEnd(Session& session) {
    if (ids_.empty()) return;
    const TensorMoveSpec move = {.tensor_id = ids_.back(), .offload_ratio = static_cast<double>(random_() % 3) / 2};
    const auto prepared = session.PrepareMove({move}, [] { return false; });
    if (!prepared.ok()) return;
    if (random_() % 2 == 0) {
      EXPECT_TRUE(session.CommitMove(prepared->move_id).ok());
    } else {
      EXPECT_TRUE(session.AbortMove(prepared->move_id).ok());
    }
  }
  // A second thread is the operator; this one carries out what it is asked, or resumes before it is.
  void DemoteAndResume(Session& session) {
    if (!session.Suspend().ok()) return;
    std::atomic<bool> done = false;
    std::thread operator_thread([&] {
      session.Demote([] { return false; }, nullptr).status().IgnoreError();
      done = true;
    });
    const bool impatient = random_() % 2 == 0;
    std::thread exchanger([&] {
      while (!done) {
        if (const auto exchange = session.TakeExchange(); exchange.ok()) {
          EXPECT_TRUE(session.FinishExchange(exchange->id, absl::OkStatus()).ok());
        }
        std::this_thread::yield();
      }
    });
    if (impatient) session.Resume([] { return true; }).status().IgnoreError();
    operator_thread.join();
    exchanger.join();
    std::atomic<bool> resumed = false;
    std::thread again([&] {
      while (!resumed) {
        if (const auto exchange = session.TakeExchange(); exchange.ok()) {
          EXPECT_TRUE(session.FinishExchange(exchange->id, absl::OkStatus()).ok());
        }
        std::this_thread::yield();
      }
    });
    EXPECT_TRUE(session.Resume([] { return false; }).ok());
    resumed = true;
    again.join();
  }

  void Act(Session& session, HandleConnection& connection) {
    const std::string name = "model-" + std::to_string(random_() % 3);
    switch (random_() % 8) {
      case 0:
      case 1:
        AllocateAndFetch(session, connection);
        break;
      case 2:
        if (!ids_.empty()) {
          session.Free({ids_.back()}).status().IgnoreError();  // published meanwhile, perhaps
          ids_.pop_back();
        }
        break;
      case 3:
        session.Publish("group", name, "f").status().IgnoreError();
        break;
      case 4:
        if (const auto attached = session.Attach(name, ""); attached.ok()) {
          for (const Grant& grant : attached->grants) {
            EXPECT_TRUE(grant.read_only);
            EXPECT_EQ(connection.Fetch({grant.ticket}).fds.size(), 1u);
          }
        }
        break;
      case 5:
        MoveAndEnd(session);
        break;
      case 6:
        DemoteAndResume(session);
        break;
      default:
        session.Detach(name).IgnoreError();
        core_.publications().Withdraw(name, 0).status().IgnoreError();
    }
  }

  void AllocateAndFetch(Session& session, HandleConnection& connection) {
    TensorSpec spec = {
        .name = "t" + std::to_string(next_name_++), .rows = 64 + random_() % 512, .cols = 1024, .offload_ratio = 0.5};
    const auto allocated = session.Allocate("group", {spec});
    if (!allocated.ok()) return;  // published: no more go in
    ids_.push_back(allocated->tensors[0].tensor.id);
    std::vector<std::string> tickets;
    for (const Grant& grant : allocated->grants) tickets.push_back(grant.ticket);
    if (tickets.empty()) return;
    EXPECT_EQ(connection.Fetch(tickets).fds.size(), tickets.size());
  }

  void End(const SessionPtr& session, HandleConnection& connection) {
    ids_.clear();
    switch (random_() % 3) {
      case 0:
        core_.sessions().Close(session);
        break;
      case 1:
        connection.Close();
        break;
      default: {  // dies in the middle of an allocation
        std::thread allocator([&] {
          const TensorSpec spec = {.name = "last", .rows = 2048, .cols = 1024, .offload_ratio = 0.5};
          session->Allocate("last", {spec}).status().IgnoreError();
        });
        connection.Close();
        allocator.join();
      }
    }
  }

  Core& core_;
  std::mt19937_64 random_;
  const Peer peer_ = {.pid = ::getpid(), .uid = ::geteuid(), .gid = ::getegid()};
  std::vector<uint64_t> ids_;
  int next_name_ = 0;
};

class Counter : public EventWatcher {
 public:
  void OnEvent(const EventPtr& event) override {
    gaps_ += last_ != 0 && event->sequence() != last_ + 1 ? 1 : 0;
    last_ = event->sequence();
  }
  void OnShutdown() override {}
  uint64_t gaps() const { return gaps_; }

 private:
  uint64_t last_ = 0;
  uint64_t gaps_ = 0;
};

TEST(ConcurrencyTest, ManyClientsLeaveNothingBehind) {
  constexpr int kClients = 4, kLives = 40;
  Core core;
  std::atomic<int> running{kClients};
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&core, &running, i] {
      Client client(&core, static_cast<uint64_t>(i + 1));
      for (int life = 0; life < kLives; ++life) client.LiveOnce();
      --running;
    });
  }
  // Meanwhile somebody looks at everything, again and again.
  while (running > 0) {
    Counter counter;
    ASSERT_TRUE(core.events().Subscribe(&counter, 100).ok());
    const monitoring::Snapshot snapshot = core.Snapshot();
    for (const monitoring::PoolSample& pool : snapshot.pools) {
      EXPECT_EQ(pool.capacity_bytes, pool.free_bytes + pool.session_bytes + pool.published_bytes);
    }
    std::vector<TensorView> tensors;
    for (const SessionPtr& session : core.sessions().List()) session->CollectTensors(0, 100, &tensors);
    core.publications().CollectTensors(0, 100, &tensors);
    core.publications().List();
    core.events().Unsubscribe(&counter);
    EXPECT_EQ(counter.gaps(), 0u);
  }
  for (std::thread& thread : threads) thread.join();
  core.Stop();
  for (const PublicationSummary& left : core.publications().List()) {
    EXPECT_EQ(left.attached_sessions, 0u);
    EXPECT_FALSE(left.withdrawn);
    EXPECT_TRUE(core.publications().Withdraw(left.name, 0).ok());
  }
  EXPECT_TRUE(core.sessions().List().empty());
  EXPECT_EQ(core.DeviceUsage(), TierArray{});
  for (const Ledger::PoolUsage& pool : core.ledger().Pools()) EXPECT_EQ(pool.free_bytes(), pool.capacity_bytes);
}

}  // namespace
}  // namespace dak::daemon
