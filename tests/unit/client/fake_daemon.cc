#include "tests/unit/client/fake_daemon.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "allocator/base/tier.h"
#include "dak/v1/control_page.h"
#include "tests/unit/client/fake_daemon_moves.h"

namespace dak::testing {
namespace {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kSegmentBytes = uint64_t{2} << 20;
constexpr uint64_t kSessionId = 7;
constexpr char kToken[] = "token";

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

class FakeDaemon::Sessions final : public v1::SessionService::Service {
 public:
  explicit Sessions(FakeDaemon* daemon) : daemon_(daemon) {}
  grpc::Status OpenSession(grpc::ServerContext*, const v1::OpenSessionRequest*,
                           v1::OpenSessionResponse* response) override {
    return daemon_->Handle("OpenSession", [&] {
      daemon_->FillOpen(response);
      return grpc::Status::OK;
    });
  }
  grpc::Status KeepSession(grpc::ServerContext*, const v1::KeepSessionRequest*, v1::KeepSessionResponse*) override {
    return daemon_->Handle("KeepSession", [] { return grpc::Status::OK; });
  }
  grpc::Status CloseSession(grpc::ServerContext*, const v1::CloseSessionRequest*, v1::CloseSessionResponse*) override {
    return daemon_->Handle("CloseSession", [&] {
      daemon_->tensors_.clear();
      daemon_->attached_.clear();
      daemon_->ReleaseEmptySegments();
      return grpc::Status::OK;
    });
  }

 private:
  FakeDaemon* daemon_;
};

class FakeDaemon::Tensors final : public v1::TensorService::Service {
 public:
  explicit Tensors(FakeDaemon* daemon) : daemon_(daemon) {}
  grpc::Status AllocateTensors(grpc::ServerContext*, const v1::AllocateTensorsRequest* request,
                               v1::AllocateTensorsResponse* response) override {
    return daemon_->Handle("AllocateTensors", [&] { return daemon_->Allocate(*request, response); });
  }
  grpc::Status FreeTensors(grpc::ServerContext*, const v1::FreeTensorsRequest* request,
                           v1::FreeTensorsResponse* response) override {
    return daemon_->Handle("FreeTensors", [&] { return daemon_->Free(*request, response); });
  }
  grpc::Status PublishGroup(grpc::ServerContext*, const v1::PublishGroupRequest* request,
                            v1::PublishGroupResponse*) override {
    return daemon_->Handle("PublishGroup", [&] { return daemon_->Publish(*request); });
  }
  grpc::Status AttachPublication(grpc::ServerContext*, const v1::AttachPublicationRequest* request,
                                 v1::AttachPublicationResponse* response) override {
    return daemon_->Handle("AttachPublication", [&] { return daemon_->Attach(*request, response); });
  }
  grpc::Status DetachPublication(grpc::ServerContext*, const v1::DetachPublicationRequest* request,
                                 v1::DetachPublicationResponse*) override {
    return daemon_->Handle("DetachPublication", [&] {
      return daemon_->attached_.erase(request->publication()) != 0
                 ? grpc::Status::OK
                 : grpc::Status(grpc::StatusCode::NOT_FOUND, "not attached");
    });
  }
  grpc::Status WithdrawPublication(grpc::ServerContext*, const v1::WithdrawPublicationRequest*,
                                   v1::WithdrawPublicationResponse*) override {
    return daemon_->Handle("WithdrawPublication", [] { return grpc::Status::OK; });
  }
  grpc::Status ListTensors(grpc::ServerContext*, const v1::ListTensorsRequest* request,
                           v1::ListTensorsResponse* response) override {
    return daemon_->Handle("ListTensors", [&] {
      for (const auto& [id, tensor] : daemon_->tensors_) {
        if (id < request->page_token()) continue;
        if (response->tensors_size() == static_cast<int>(request->page_size())) {
          response->set_next_page_token(id);
          break;
        }
        *response->add_tensors() = tensor;
      }
      return grpc::Status::OK;
    });
  }

 private:
  FakeDaemon* daemon_;
};

class FakeDaemon::Plans final : public v1::PlanService::Service {
 public:
  explicit Plans(FakeDaemon* daemon) : daemon_(daemon) {}
  grpc::Status PlanPass(grpc::ServerContext*, const v1::PlanPassRequest* request, v1::Plan* response) override {
    return daemon_->Handle("PlanPass", [&] {
      for (const v1::Operation& operation : request->operations()) {
        response->add_operations()->set_offload_ratio(operation.max_ratio());
      }
      return grpc::Status::OK;
    });
  }

 private:
  FakeDaemon* daemon_;
};

FakeDaemon::FakeDaemon() {
  std::string pattern = std::filesystem::temp_directory_path() / "dak-fake-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  runtime_dir_ = pattern;
  device_ = *OpenDevice({.kind = DeviceOptions::Kind::kEmulated,
                         .ordinal = 0,
                         .uuid = "",
                         .cxl_numa_node = -1,
                         .host_memfd = false,
                         .emulated = {}});
  sessions_service_ = std::make_unique<Sessions>(this);
  tensors_service_ = std::make_unique<Tensors>(this);
  plans_service_ = std::make_unique<Plans>(this);
  moves_service_ = std::make_unique<Moves>(this);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + runtime_dir_ + "/control.sock", grpc::InsecureServerCredentials());
  builder.RegisterService(sessions_service_.get());
  builder.RegisterService(tensors_service_.get());
  builder.RegisterService(plans_service_.get());
  builder.RegisterService(moves_service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) std::abort();
  ServeHandles();
}

FakeDaemon::~FakeDaemon() {
  Stop();
  std::filesystem::remove_all(runtime_dir_);
}

void FakeDaemon::Set(const std::function<void(Faults*)>& change) {
  std::lock_guard lock(mutex_);
  change(&faults_);
}

size_t FakeDaemon::tensor_count() const {
  std::lock_guard lock(mutex_);
  return tensors_.size();
}

size_t FakeDaemon::segment_count() const {
  std::lock_guard lock(mutex_);
  return segments_.size();
}

size_t FakeDaemon::attached_count() const {
  std::lock_guard lock(mutex_);
  return attached_.size();
}

int FakeDaemon::calls(const std::string& rpc) const {
  std::lock_guard lock(mutex_);
  const auto it = calls_.find(rpc);
  return it == calls_.end() ? 0 : it->second;
}

grpc::Status FakeDaemon::Handle(const std::string& rpc, const std::function<grpc::Status()>& act) {
  std::lock_guard lock(mutex_);
  ++calls_[rpc];
  if (const auto it = faults_.before.find(rpc); it != faults_.before.end()) return it->second();
  const grpc::Status status = act();
  if (const auto it = faults_.after.find(rpc); it != faults_.after.end()) return it->second();
  return status;
}

void FakeDaemon::FillOpen(v1::OpenSessionResponse* response) {
  response->set_session_id(kSessionId);
  response->set_session_token(kToken);
  response->set_daemon_version("0.0.1-fake");
  response->set_lease_ns(faults_.lease_ns);
  v1::DeviceInfo* const device = response->mutable_device();
  device->set_kind(faults_.device_kind);
  device->set_name("fake");
  device->set_link_count(1);
  const LinkModel link;
  device->mutable_emulated_link()->set_bandwidth_bytes_per_s(link.bandwidth_bytes_per_s);
  device->mutable_emulated_link()->set_round_trip_ns(link.round_trip_ns);
  device->mutable_emulated_link()->set_cliff_bytes(link.cliff_bytes);
  device->mutable_emulated_link()->set_local_bandwidth_bytes_per_s(link.local_bandwidth_bytes_per_s);
  device->mutable_emulated_link()->set_cliff_floor(link.cliff_floor);
  AddPage(v1::Handle::PURPOSE_CONTROL_PAGE, v1::kControlPageMagic, "pages");
  AddPage(v1::Handle::PURPOSE_REPORT_PAGE, v1::kReportPageMagic, "pages");
  response->set_control_ticket("pages");
}

void FakeDaemon::AddPage(v1::Handle::Purpose purpose, uint32_t magic, const std::string& ticket) {
  Ticket entry;
  entry.handle.set_purpose(purpose);
  auto page = *device_->CreateSharedPage(v1::kControlPageBytes, &entry.fd);
  auto* const header = static_cast<v1::PageHeader*>(page->host_pointer());
  header->magic = magic;
  header->version = faults_.page_version != 0 ? faults_.page_version : v1::kControlPageVersion;
  header->session_id = kSessionId;
  header->link_count = 1;
  header->page_bytes = v1::kControlPageBytes;
  if (purpose == v1::Handle::PURPOSE_CONTROL_PAGE) {
    static_cast<v1::ControlPage*>(page->host_pointer())->links[0].window_bytes = 128 * 1024;
  }
  pages_.push_back(std::move(page));
  tickets_.emplace(ticket, std::move(entry));
}

std::string FakeDaemon::GrantSegment(uint64_t id, bool read_only) {
  const Segment& segment = segments_.at(id);
  auto exported = *device_->Export(*segment.memory, read_only ? Access::kReadOnly : Access::kReadWrite);
  Ticket entry;
  entry.handle.set_purpose(v1::Handle::PURPOSE_SEGMENT);
  entry.handle.set_segment_id(id);
  entry.handle.set_tier(static_cast<v1::Tier>(exported.tier));
  entry.handle.set_kind(static_cast<v1::HandleKind>(exported.kind));
  entry.handle.set_bytes(exported.bytes);
  entry.handle.set_read_only(read_only);
  entry.fd = std::move(exported.fd);
  const std::string ticket = "segment-" + std::to_string(id) + "-" + std::to_string(next_id_++);
  tickets_.emplace(ticket, std::move(entry));
  return ticket;
}

grpc::Status FakeDaemon::Allocate(const v1::AllocateTensorsRequest& request, v1::AllocateTensorsResponse* response) {
  if (request.session_token() != kToken) return {grpc::StatusCode::UNAUTHENTICATED, "no such session"};
  for (const v1::TensorSpec& spec : request.tensors()) {
    v1::Tensor tensor;
    tensor.set_tensor_id(next_id_++);
    tensor.set_name(spec.name());
    tensor.set_group(request.group());
    tensor.set_data_type(spec.data_type());
    tensor.set_rows(spec.rows());
    tensor.set_cols(spec.cols());
    tensor.set_session_id(kSessionId);
    Place(spec, &tensor, response);
    tensors_[tensor.tensor_id()] = tensor;
    *response->add_tensors() = tensor;
  }
  if (faults_.deliver && request.deliver_handles()) Deliver(response);
  if (faults_.edit_allocation) faults_.edit_allocation(response);
  return grpc::Status::OK;
}

void FakeDaemon::Place(const v1::TensorSpec& spec, v1::Tensor* tensor, v1::AllocateTensorsResponse* response) {
  const auto remote = static_cast<uint64_t>(spec.offload_ratio() * static_cast<double>(spec.rows()));
  const uint64_t local = spec.rows() - remote;
  if (local != 0) PlacePart(Tier::kHbm, 0, local, tensor, response);
  if (remote != 0) PlacePart(static_cast<Tier>(spec.remote_tier()), local, remote, tensor, response);
}

void FakeDaemon::PlacePart(Tier tier, uint64_t first_row, uint64_t rows, v1::Tensor* tensor,
                           v1::AllocateTensorsResponse* response) {
  const auto element = static_cast<ElementType>(tensor->data_type());
  const uint64_t bytes = rows * tensor->cols() * ElementBytes(element);
  std::map<uint64_t, uint64_t> used;  // by segment: where its last tensor ends
  for (const auto& [id, other] : tensors_) {
    for (const v1::TensorPart& part : other.parts()) {
      used[part.segment_id()] =
          std::max(used[part.segment_id()], RoundUp(part.offset_bytes() + part.bytes(), kBlockBytes));
    }
  }
  uint64_t segment_id = 0;
  for (const auto& [id, segment] : segments_) {
    const bool fits = segment.group == tensor->group() && segment.memory->tier() == tier &&
                      used[id] + bytes <= segment.memory->bytes();
    if (fits) segment_id = id;
  }
  if (segment_id == 0) {
    segment_id = next_id_++;
    auto memory = *device_->CreateSegment(tier, RoundUp(bytes, kSegmentBytes));
    v1::SegmentGrant* const grant = response->add_segments();
    grant->set_segment_id(segment_id);
    grant->set_tier(static_cast<v1::Tier>(tier));
    grant->set_bytes(memory->bytes());
    grant->set_kind(static_cast<v1::HandleKind>(memory->kind()));
    segments_[segment_id] = {.memory = std::move(memory), .group = tensor->group()};
    grant->set_ticket(GrantSegment(segment_id, /*read_only=*/false));
  }
  v1::TensorPart* const part = tensor->add_parts();
  part->set_tier(static_cast<v1::Tier>(tier));
  part->set_first_row(first_row);
  part->set_rows(rows);
  part->set_segment_id(segment_id);
  part->set_offset_bytes(used[segment_id]);
  part->set_bytes(bytes);
  const TensorMapSpec spec{.element = element,
                           .rows = rows,
                           .cols = tensor->cols(),
                           .box_rows = 64,
                           .box_cols = static_cast<uint32_t>(128 / ElementBytes(element))};
  const auto map = device_->EncodeTensorMap(spec, part->offset_bytes());
  if (map.ok()) part->set_tensor_map(map->bytes.data(), map->bytes.size());
}

grpc::Status FakeDaemon::Free(const v1::FreeTensorsRequest& request, v1::FreeTensorsResponse*) {
  for (uint64_t id : request.tensor_ids()) {
    if (tensors_.count(id) == 0) return {grpc::StatusCode::NOT_FOUND, "no such tensor"};
  }
  for (uint64_t id : request.tensor_ids()) tensors_.erase(id);
  ReleaseEmptySegments();
  return grpc::Status::OK;
}

void FakeDaemon::ReleaseEmptySegments() {
  std::map<uint64_t, bool> live;
  for (const auto* tensors : {&tensors_, &published_, &moving_}) {
    for (const auto& [id, tensor] : *tensors) {
      for (const v1::TensorPart& part : tensor.parts()) live[part.segment_id()] = true;
    }
  }
  std::erase_if(segments_, [&](const auto& entry) { return !live.contains(entry.first); });
}

grpc::Status FakeDaemon::Publish(const v1::PublishGroupRequest& request) {
  if (fingerprints_.contains(request.publication())) return {grpc::StatusCode::ALREADY_EXISTS, "the name is taken"};
  for (auto it = tensors_.begin(); it != tensors_.end();) {
    if (it->second.group() != request.group()) {
      ++it;
      continue;
    }
    v1::Tensor sealed = it->second;
    sealed.set_group(request.publication());
    sealed.set_session_id(0);
    published_[sealed.tensor_id()] = sealed;
    it = tensors_.erase(it);
  }
  fingerprints_[request.publication()] = request.fingerprint();
  ++attached_[request.publication()];
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::Attach(const v1::AttachPublicationRequest& request, v1::AttachPublicationResponse* response) {
  const auto it = fingerprints_.find(request.publication());
  if (it == fingerprints_.end()) return {grpc::StatusCode::NOT_FOUND, "no such publication"};
  std::map<uint64_t, bool> granted;
  for (const auto& [id, tensor] : published_) {
    if (tensor.group() != request.publication()) continue;
    *response->add_tensors() = tensor;
    for (const v1::TensorPart& part : tensor.parts()) {
      if (std::exchange(granted[part.segment_id()], true)) continue;
      v1::SegmentGrant* const grant = response->add_segments();
      grant->set_segment_id(part.segment_id());
      grant->set_tier(part.tier());
      grant->set_bytes(segments_.at(part.segment_id()).memory->bytes());
      grant->set_kind(v1::HANDLE_KIND_MEMFD);
      grant->set_read_only(true);
      grant->set_ticket(GrantSegment(part.segment_id(), /*read_only=*/true));
    }
  }
  ++attached_[request.publication()];
  return grpc::Status::OK;
}

}  // namespace dak::testing
