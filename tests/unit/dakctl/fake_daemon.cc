#include "tests/unit/dakctl/fake_daemon.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <sstream>
#include <thread>

namespace dak::dakctl::testing {

namespace {

// A call sees what was set before it, which gRPC makes sure of in ways that a thread sanitizer can't see. So the thread
// that sets, before its call, and the one that serves both go through this.
void MeetOverScript() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
}

}  // namespace

class FakeDaemon::Shared {
 public:
  explicit Shared(Script& script) : script_(script) {}
  Script* operator->() const {
    MeetOverScript();
    return &script_;
  }

 private:
  Script& script_;
};

class FakeDaemon::Node final : public v1::NodeService::Service {
 public:
  explicit Node(Script& script) : script_(script) {}
  grpc::Status GetNode(grpc::ServerContext*, const v1::GetNodeRequest*, v1::GetNodeResponse* response) override {
    *response = script_->node;
    return script_->status;
  }
  grpc::Status ListPools(grpc::ServerContext*, const v1::ListPoolsRequest*, v1::ListPoolsResponse* response) override {
    *response = script_->pools;
    return script_->status;
  }
  grpc::Status GetCongestion(grpc::ServerContext*, const v1::GetCongestionRequest*,
                             v1::GetCongestionResponse* response) override {
    *response = script_->congestion;
    return script_->status;
  }
  grpc::Status GetQuotas(grpc::ServerContext*, const v1::GetQuotasRequest* request,
                         v1::GetQuotasResponse* response) override {
    for (const auto& quota : script_->quotas.quotas()) {
      if (request->session_id() == 0 || request->session_id() == quota.session_id()) *response->add_quotas() = quota;
    }
    return script_->status;
  }
  grpc::Status SetQuota(grpc::ServerContext*, const v1::SetQuotaRequest* request,
                        v1::SetQuotaResponse* response) override {
    return script_->set_quota ? script_->set_quota(*request, response) : script_->status;
  }
  grpc::Status WatchEvents(grpc::ServerContext* context, const v1::WatchEventsRequest* request,
                           grpc::ServerWriter<v1::Event>* writer) override {
    if (!script_->status.ok()) return script_->status;
    const size_t n = std::min<size_t>(request->replay(), script_->events.size());
    for (size_t i = script_->events.size() - n; i < script_->events.size(); ++i) writer->Write(script_->events[i]);
    if (script_->end_events) return script_->end_events();
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  }

 private:
  Shared script_;
};

class FakeDaemon::Sessions final : public v1::SessionService::Service {
 public:
  explicit Sessions(Script& script) : script_(script) {}
  grpc::Status ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest*,
                            v1::ListSessionsResponse* response) override {
    *response = script_->sessions;
    return script_->status;
  }

 private:
  Shared script_;
};

class FakeDaemon::Tensors final : public v1::TensorService::Service {
 public:
  explicit Tensors(Script& script) : script_(script) {}
  grpc::Status ListTensors(grpc::ServerContext*, const v1::ListTensorsRequest* request,
                           v1::ListTensorsResponse* response) override {
    for (const auto& tensor : script_->tensors.tensors()) {
      if (tensor.tensor_id() < request->page_token()) continue;
      if (request->session_id() != 0 && request->session_id() != tensor.session_id()) continue;
      if (static_cast<uint32_t>(response->tensors_size()) == script_->page_size) {
        response->set_next_page_token(tensor.tensor_id());
        break;
      }
      *response->add_tensors() = tensor;
    }
    if (script_->endless_pages) response->set_next_page_token(1);
    return script_->status;
  }
  grpc::Status ListPublications(grpc::ServerContext*, const v1::ListPublicationsRequest*,
                                v1::ListPublicationsResponse* response) override {
    *response = script_->publications;
    return script_->status;
  }
  grpc::Status WithdrawPublication(grpc::ServerContext*, const v1::WithdrawPublicationRequest* request,
                                   v1::WithdrawPublicationResponse* response) override {
    return script_->withdraw ? script_->withdraw(*request, response) : script_->status;
  }

 private:
  Shared script_;
};

class FakeDaemon::Plans final : public v1::PlanService::Service {
 public:
  explicit Plans(Script& script) : script_(script) {}
  grpc::Status GetProfile(grpc::ServerContext*, const v1::GetProfileRequest*, v1::Profile* response) override {
    *response = script_->profile;
    return script_->status;
  }
  grpc::Status GetPlan(grpc::ServerContext*, const v1::GetPlanRequest* request, v1::Plan* response) override {
    if (!script_->status.ok()) return script_->status;
    if (request->session_id() != script_->plan.session_id()) {
      return {grpc::StatusCode::NOT_FOUND, "session_id: there is no such session"};
    }
    *response = script_->plan;
    return grpc::Status::OK;
  }

 private:
  Shared script_;
};

FakeDaemon::FakeDaemon(Script script)
    : script_(std::move(script)),
      dir_(MakeFolder()),
      node_(std::make_unique<Node>(script_)),
      sessions_(std::make_unique<Sessions>(script_)),
      tensors_(std::make_unique<Tensors>(script_)),
      plans_(std::make_unique<Plans>(script_)) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + dir_ + "/control.sock", grpc::InsecureServerCredentials());
  builder.RegisterService(node_.get());
  builder.RegisterService(sessions_.get());
  builder.RegisterService(tensors_.get());
  builder.RegisterService(plans_.get());
  server_ = builder.BuildAndStart();
  EXPECT_NE(server_, nullptr);
}

FakeDaemon::~FakeDaemon() {
  Stop();
  std::filesystem::remove_all(dir_);
}

void FakeDaemon::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
  std::filesystem::remove(dir_ + "/control.sock");
}

std::string MakeFolder() {
  std::string name = ::testing::TempDir() + "/dakctl-XXXXXX";
  EXPECT_NE(::mkdtemp(name.data()), nullptr);
  return name;
}

Result Dakctl(const std::string& runtime_dir, std::vector<std::string> args, const Terminal& terminal) {
  if (!runtime_dir.empty()) args.insert(args.begin(), "--runtime-dir=" + runtime_dir);
  std::ostringstream out, err;
  Result result;
  MeetOverScript();
  result.exit_code = RunDakctl(args, out, err, terminal);
  result.out = out.str();
  result.err = err.str();
  return result;
}

}  // namespace dak::dakctl::testing
