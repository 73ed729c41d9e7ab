#include "daemon/daemon.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/ipc/control_acceptor.h"
#include "daemon/ipc/handle_server.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/health_service.h"
#include "daemon/rpc/migration_service.h"
#include "daemon/rpc/node_service.h"
#include "daemon/rpc/plan_service.h"
#include "daemon/rpc/session_service.h"
#include "daemon/rpc/tensor_service.h"
#include "daemon/runtime_dir.h"
#include "daemon/snapshot.h"

#ifndef DAK_VERSION
#error "DAK_VERSION comes from the build"
#endif

namespace dak::daemon {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;  // a plan of 100000 operations fits
constexpr int kMaxCallThreads = 512;        // beside those of streams
// For the last answers to be written, once every handler has returned.
constexpr std::chrono::milliseconds kAnswerGrace(50);
// A thread that finds this many others waiting ends. With more, a burst wakes threads that find nothing to do: on two
// processors 64 clients got a quarter less done with 8.
constexpr int kMaxPollers = 2;
// control.sock's connections; below are descriptors of everything else, which needn't be few.
constexpr int kMaxControlConnections = 16'384;

// As many descriptors as the system allows: every segment, page and connection is one.
int RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
}

PeerTable MakePeerTable() {
  const int descriptors = RaiseDescriptorLimit();
  const int last = descriptors - 1;
  return PeerTable(std::max(last - kMaxControlConnections, descriptors / 2), last);
}

absl::StatusOr<TierArray> Capacities(const DaemonOptions& options, const Device& device,
                                     std::array<int, kTierCount>* nodes) {
  TierArray capacities{};
  for (const Tier tier : kAllTiers) {
    const size_t index = TierIndex(tier);
    (*nodes)[index] = -1;
    const auto& configured = options.capacity_bytes[index];
    const absl::StatusOr<Device::TierInfo> info = device.GetTier(tier);
    if (!info.ok()) {
      const bool wanted = configured.has_value() && *configured > 0;
      if (info.status().code() == absl::StatusCode::kFailedPrecondition && !wanted) continue;
      return info.status();
    }
    (*nodes)[index] = info->numa_node;
    capacities[index] = configured.value_or(DefaultCapacity(device.description().kind, tier, info->total_bytes));
    if (capacities[index] > info->total_bytes) {
      const std::string field = absl::StrCat("pools.", TierName(tier), ".capacity");
      return WithDetail(absl::ResourceExhaustedError(absl::StrCat(field, ": the device has ", info->total_bytes,
                                                                  " bytes, not ", capacities[index])),
                        {.field = field,
                         .reason = "POOL_TOO_LARGE",
                         .limit = absl::StrCat("at most ", info->total_bytes),
                         .shortfall_bytes = capacities[index] - info->total_bytes});
    }
  }
  return capacities;
}

void DescribeLink(const LinkModel& model, v1::LinkModel* link) {
  link->set_bandwidth_bytes_per_s(model.bandwidth_bytes_per_s);
  link->set_round_trip_ns(model.round_trip_ns);
  link->set_cliff_bytes(model.cliff_bytes);
  link->set_local_bandwidth_bytes_per_s(model.local_bandwidth_bytes_per_s);
  link->set_cliff_floor(model.cliff_floor);
}

v1::DeviceInfo DescribeDevice(const DeviceDescription& description) {
  v1::DeviceInfo info;
  info.set_kind(description.kind);
  info.set_name(description.name);
  info.set_ordinal(description.ordinal);
  info.set_uuid(description.uuid);
  info.set_granule_bytes(kGranuleBytes);
  info.set_link_count(description.link_count());
  if (description.kind == "emulated") DescribeLink(description.link, info.mutable_emulated_link());
  if (description.cxl_link.has_value()) DescribeLink(*description.cxl_link, info.mutable_emulated_cxl_link());
  return info;
}

// With the tiers that the node has.
std::vector<NodeLink> LinksOfNode(const NodeProfile& profile, const DeviceDescription& device,
                                  const TierArray& capacities) {
  std::vector<NodeLink> links = LinksOf(profile.profile, device);
  for (NodeLink& link : links) {
    const auto absent = [&](Tier tier) { return capacities[TierIndex(tier)] == 0; };
    link.tiers.erase(std::remove_if(link.tiers.begin(), link.tiers.end(), absent), link.tiers.end());
  }
  return links;
}

}  // namespace

const char* Version() { return DAK_VERSION; }

// Members are in order of construction: what comes later uses what comes before.
class Daemon::Impl {
 public:
  Impl(const DaemonOptions& options, std::unique_ptr<Device> device, RuntimeDir directory, const TierArray& capacities,
       const NodeProfile& profile)
      : options_(options),
        directory_(std::move(directory)),
        device_(std::move(device)),
        metrics_([this] { return TakeSnapshot(service_); }),
        ledger_(capacities),
        events_(options.limits.max_watchers,
                [this](v1::Event::Type type) { metrics_.CountEvent(v1::Event::Type_Name(type)); }),
        publications_(&ledger_, &events_, options.limits.max_publications),
        congestion_(LinksOfNode(profile, device_->description(), capacities), options.congestion, &events_, &metrics_),
        peers_(MakePeerTable()) {
    environment_.device = device_.get();
    environment_.ledger = &ledger_;
    environment_.events = &events_;
    environment_.publications = &publications_;
    environment_.metrics = &metrics_;
    environment_.congestion = &congestion_;
    environment_.limits = options.limits;
    planning_ = std::make_unique<Planning>(profile.profile, options.replan, &environment_, &congestion_);
    service_.planning = planning_.get();
    service_.environment = &environment_;
    service_.congestion = &congestion_;
    service_.peers = &peers_;
    service_.gate = &gate_;
    service_.version = Version();
    service_.device = DescribeDevice(device_->description());
    service_.default_quota_bytes = options.default_quota_bytes;
    service_.profile = profile;
    service_.started_ns = MonotonicNs();
    sessions_ = std::make_unique<SessionManager>(&environment_, &congestion_, options.lease_ns);
    sessions_->set_on_gone([this](uint64_t session_id) { planning_->Remove(session_id); });
    service_.sessions = sessions_.get();
  }
  ~Impl() { Stop(); }

  absl::Status Start(const std::array<int, kTierCount>& numa_nodes) {
    service_.numa_nodes = numa_nodes;
    DAK_ASSIGN_OR_RETURN(UnixListener control,
                         UnixListener::Bind(directory_.control_socket(), SOCK_STREAM, options_.socket));
    DAK_ASSIGN_OR_RETURN(UnixListener handles,
                         UnixListener::Bind(directory_.handles_socket(), SOCK_SEQPACKET, options_.socket));
    if (!options_.metrics_address.empty()) {
      DAK_RETURN_IF_ERROR(metrics_.Serve(options_.metrics_address));
      service_.metrics_address = metrics_.address();
    }
    DAK_RETURN_IF_ERROR(StartServer());
    const PeerPolicy policy(options_.allowed_uids, ::geteuid());
    congestion_.Start();
    planning_->Start();
    handles_ = std::make_unique<HandleServer>(std::move(handles), policy, service_.version, sessions_.get());
    sessions_->set_on_expired([this](uint64_t connection_id) { handles_->EndConnection(connection_id); });
    sessions_->set_send([this](uint64_t connection_id, absl::Span<const HandleGrant> grants) {
      return handles_->Deliver(connection_id, grants);
    });
    DAK_RETURN_IF_ERROR(handles_->Start());
    acceptor_ = std::make_unique<ControlAcceptor>(std::move(control), server_.get(), policy, &peers_);
    return acceptor_->Start();
  }

  void Stop() {
    if (std::exchange(stopped_, true)) return;
    environment_.stopping = true;
    if (acceptor_ != nullptr) acceptor_->Stop();
    if (server_ != nullptr) {
      health_service_.StopServing();
      events_.Close();
      gate_.Drain(absl::Nanoseconds(options_.shutdown_grace_ns));
      server_->Shutdown(std::chrono::system_clock::now() + kAnswerGrace);
      server_->Wait();
    }
    if (handles_ != nullptr) handles_->Stop();
    sessions_->Shutdown();
    planning_->Stop();
    congestion_.Stop();
    directory_.RemoveSockets();
  }

  const Ledger& ledger() const { return ledger_; }
  const monitoring::Metrics& metrics() const { return metrics_; }

 private:
  absl::Status StartServer() {
    // gRPC's own would bring callback threads, and they would take the waiting for requests over.
    grpc::EnableDefaultHealthCheckService(false);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    grpc::ResourceQuota quota("dakd");
    quota.SetMaxThreads(kMaxCallThreads + static_cast<int>(options_.limits.max_watchers + kMaxHealthWatchers));
    builder.SetResourceQuota(quota);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetMaxSendMessageSize(kMaxMessageBytes);
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, kMaxPollers);
    for (grpc::Service* service :
         std::initializer_list<grpc::Service*>{&session_service_, &tensor_service_, &plan_service_, &node_service_,
                                               &migration_service_, &health_service_}) {
      builder.RegisterService(service);
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::InternalError("gRPC refused to start a server");
    return absl::OkStatus();
  }

  const DaemonOptions options_;
  const RuntimeDir directory_;
  const std::unique_ptr<Device> device_;
  SessionEnvironment environment_;
  ServiceContext service_;
  monitoring::Metrics metrics_;
  Ledger ledger_;
  EventLog events_;
  Publications publications_;
  CongestionLoop congestion_;
  PeerTable peers_;
  CallGate gate_;
  std::unique_ptr<Planning> planning_;
  std::unique_ptr<SessionManager> sessions_;
  SessionServiceImpl session_service_{&service_};
  TensorServiceImpl tensor_service_{&service_};
  PlanServiceImpl plan_service_{&service_};
  NodeServiceImpl node_service_{&service_};
  MigrationServiceImpl migration_service_{&service_};
  HealthServiceImpl health_service_{&gate_};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<HandleServer> handles_;
  std::unique_ptr<ControlAcceptor> acceptor_;
  bool stopped_ = false;
};

Daemon::Daemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Daemon::~Daemon() { Stop(); }

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const DaemonOptions& options, std::unique_ptr<Device> device) {
  DAK_ASSIGN_OR_RETURN(RuntimeDir directory, RuntimeDir::Claim(options.runtime_dir));
  std::array<int, kTierCount> numa_nodes{};
  DAK_ASSIGN_OR_RETURN(const TierArray capacities, Capacities(options, *device, &numa_nodes));
  DAK_ASSIGN_OR_RETURN(const NodeProfile profile,
                       ObtainProfile(options.profile, device->description(), options.measure));
  auto impl = std::make_unique<Impl>(options, std::move(device), std::move(directory), capacities, profile);
  DAK_RETURN_IF_ERROR(impl->Start(numa_nodes));
  return std::unique_ptr<Daemon>(new Daemon(std::move(impl)));
}

void Daemon::Stop() { impl_->Stop(); }
const Ledger& Daemon::ledger() const { return impl_->ledger(); }
std::string Daemon::metrics_address() const { return impl_->metrics().address(); }
std::string Daemon::RenderMetrics() const { return impl_->metrics().Render(); }

}  // namespace dak::daemon
