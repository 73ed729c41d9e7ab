// C++20 over the C ABI of dak/dak.h: sessions that close themselves, results instead of out-parameters.
//
// Header-only, without exceptions of its own and without any type but the standard library's. dak/dak.h says what
// calls do, what they own and which threads may make them; here is only what C++ adds.
//
//   dak::Result<dak::Session> session = dak::Session::Open({.name = "engine"});
//   if (!session.ok()) return Fail(session.status().message());
//   auto w = session->Allocate({.name = "w", .rows = 4096, .cols = 4096, .offload_ratio = 0.02});
//
// Ownership: a Session owns its tensors; a Tensor is a handle, valid until it is freed, detached or the session ends.
#ifndef DAK_DAK_HPP_
#define DAK_DAK_HPP_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dak/dak.h"
#include "dak/migration.hpp"
#include "dak/result.hpp"
#include "dak/tensor.hpp"

namespace dak {
inline namespace v0 {

struct SessionOptions {
  std::string runtime_dir{};     // empty: $DAK_RUNTIME_DIR, else /run/dak
  std::string name{};            // empty: the program's name
  uint32_t weight = 0;           // 1 to 1000; 0: 100
  uint64_t hbm_quota_bytes = 0;  // 0: the daemon's default
  uint64_t host_quota_bytes = 0;
  uint64_t cxl_quota_bytes = 0;
  std::chrono::nanoseconds timeout{0};  // of every call to the daemon; 0: the defaults
};

struct TensorSpec {
  std::string name{};
  dak_data_type data_type = DAK_BF16;
  uint64_t rows = 0;
  uint64_t cols = 0;
  double offload_ratio = 0;
  dak_tier remote_tier = DAK_TIER_HOST;
  uint32_t tile_rows = 0;  // 0: 64
};

struct Operation {
  std::string name{};
  uint64_t bytes = 0;
  double flops = 0;
  double min_ratio = 0;
  double max_ratio = 1;
  uint64_t batch = 0;         // of a matrix product: rows of x; 0: none, or unknown
  uint64_t stored_bytes = 0;  // what the HBM budget counts; 0: as many as are read
  uint64_t rows = 0;          // a divisor of the bytes stored: plan whole tiles; 0: between any bytes
  uint32_t tile_rows = 0;     // 0: 64
  bool is_kv_cache = false;
};

struct Plan {
  std::vector<double> ratios{};  // in the order of the operations
  double predicted_s = 0;
};
// Of Session::Gemm, as dak_gemm_args and dak_activation explain it; addresses are the device's, 0: none.
struct Epilogue {
  uint64_t bias = 0;
  uint64_t residual = 0;
  dak_activation activation = DAK_ACTIVATION_NONE;
};

// Move-only; closes on destruction.
class Session : public MigrationCalls<Session> {
 public:
  static Result<Session> Open(const SessionOptions& options = {}) {
    dak_session_options given{};
    given.struct_size = sizeof(given);
    given.runtime_dir = options.runtime_dir.empty() ? nullptr : options.runtime_dir.c_str();
    given.name = options.name.empty() ? nullptr : options.name.c_str();
    given.weight = options.weight;
    given.hbm_quota_bytes = options.hbm_quota_bytes;
    given.host_quota_bytes = options.host_quota_bytes;
    given.cxl_quota_bytes = options.cxl_quota_bytes;
    given.timeout_ns = static_cast<uint64_t>(options.timeout.count());
    dak_session* session = nullptr;
    if (Status s = Check([&](dak_error* e) { return dak_session_open(&given, &session, e); }); !s.ok()) return s;
    return Session(session);
  }
  Session() = default;
  Session(Session&& other) noexcept : session_(std::exchange(other.session_, nullptr)) {}
  Session& operator=(Session&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.session_, nullptr));
    return *this;
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { Reset(); }

  dak_session* get() const { return session_; }
  void Close() { Reset(); }

  Result<dak_session_info> GetInfo() const {
    dak_session_info info{};
    info.struct_size = sizeof(info);
    if (Status s = Check([&](dak_error* e) { return dak_session_get_info(session_, &info, e); }); !s.ok()) return s;
    return info;
  }

  // All or nothing; in the order of `specs`.
  Result<std::vector<Tensor>> Allocate(std::span<const TensorSpec> specs, const std::string& group = "default") {
    std::vector<dak_tensor_spec> given;
    for (const TensorSpec& spec : specs) {
      given.push_back({sizeof(dak_tensor_spec), spec.name.c_str(), spec.data_type, spec.rows, spec.cols,
                       spec.offload_ratio, spec.remote_tier, spec.tile_rows});
    }
    std::vector<dak_tensor*> tensors(specs.size());
    const Status status = Check([&](dak_error* e) {
      return dak_tensors_allocate(session_, group.c_str(), given.data(), given.size(), tensors.data(), e);
    });
    if (!status.ok()) return status;
    return Handles(tensors);
  }
  Result<Tensor> Allocate(const TensorSpec& spec, const std::string& group = "default") {
    Result<std::vector<Tensor>> tensors = Allocate(std::span<const TensorSpec>(&spec, 1), group);
    if (!tensors.ok()) return tensors.status();
    return tensors->front();
  }
  Status Free(std::span<const Tensor> tensors) {
    std::vector<dak_tensor*> given;
    for (const Tensor& tensor : tensors) given.push_back(tensor.get());
    return Check([&](dak_error* e) { return dak_tensors_free(session_, given.data(), given.size(), e); });
  }
  Status Free(Tensor tensor) { return Free(std::span<const Tensor>(&tensor, 1)); }
  Result<Tensor> Find(const std::string& name, const std::string& group = "default") const {
    dak_tensor* found = nullptr;
    const Status status =
        Check([&](dak_error* e) { return dak_tensor_find(session_, group.c_str(), name.c_str(), &found, e); });
    if (!status.ok()) return status;
    return Tensor(found);
  }

  Status Publish(const std::string& group, const std::string& publication, const std::string& fingerprint) {
    return Check([&](dak_error* e) {
      return dak_publish(session_, group.c_str(), publication.c_str(), fingerprint.c_str(), e);
    });
  }
  // An empty fingerprint matches any.
  Result<std::vector<Tensor>> Attach(const std::string& publication, const std::string& fingerprint = "") {
    dak_tensor* const* tensors = nullptr;
    size_t count = 0;
    const Status status = Check([&](dak_error* e) {
      return dak_attach(session_, publication.c_str(), fingerprint.c_str(), &tensors, &count, e);
    });
    if (!status.ok()) return status;
    return Handles({tensors, count});
  }
  Status Detach(const std::string& publication) {
    return Check([&](dak_error* e) { return dak_detach(session_, publication.c_str(), e); });
  }
  Status Withdraw(const std::string& publication) {
    return Check([&](dak_error* e) { return dak_withdraw(session_, publication.c_str(), e); });
  }

  Result<Plan> PlanPass(std::span<const Operation> operations, uint64_t hbm_budget_bytes) {
    std::vector<dak_operation> given;
    for (const Operation& operation : operations) {
      given.push_back({sizeof(dak_operation), operation.name.c_str(), operation.bytes, operation.flops,
                       operation.min_ratio, operation.max_ratio, operation.batch, operation.stored_bytes,
                       operation.rows, operation.tile_rows, operation.is_kv_cache ? 1u : 0u});
    }
    Plan plan;
    plan.ratios.resize(operations.size());
    const Status status = Check([&](dak_error* e) {
      return dak_plan(session_, given.data(), given.size(), hbm_budget_bytes, plan.ratios.data(), &plan.predicted_s, e);
    });
    if (!status.ok()) return status;
    return plan;
  }

  // y = activation(x W^T + bias) + residual; all addresses are the device's.
  Status Gemm(Tensor weights, uint64_t x, uint64_t y, uint32_t batch, void* stream = nullptr,
              const Epilogue& epilogue = {}) {
    const dak_gemm_args args = {sizeof(dak_gemm_args), weights.get(),      x, y, batch, stream, epilogue.bias,
                                epilogue.residual,     epilogue.activation};
    return Check([&](dak_error* e) { return dak_gemm(session_, &args, e); });
  }
  // struct_size is filled in; everything else is dak_attention_args's.
  Status Attention(dak_attention_args args) {
    args.struct_size = sizeof(args);
    return Check([&](dak_error* e) { return dak_attention(session_, &args, e); });
  }
  Status Synchronize(void* stream = nullptr) {
    return Check([&](dak_error* e) { return dak_synchronize(session_, stream, e); });
  }

 private:
  explicit Session(dak_session* session) : session_(session) {}
  static std::vector<Tensor> Handles(std::span<dak_tensor* const> tensors) {
    return std::vector<Tensor>(tensors.begin(), tensors.end());
  }
  void Reset(dak_session* session = nullptr) {
    if (session_ != nullptr) dak_session_close(session_);
    session_ = session;
  }
  dak_session* session_ = nullptr;
};

}  // namespace v0
}  // namespace dak

#endif  // DAK_DAK_HPP_
