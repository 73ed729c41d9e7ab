#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "client/demo/model.h"
#include "dak/dak.hpp"
#include "tests/bench/neighbours/load.h"

namespace dak::bench {
namespace {

constexpr uint32_t kBatch = 8;
constexpr uint64_t kCheckedRows = 64;
// Of the weights in HBM, all with the same content, in turn: L2 keeps parts of a single one from launch to launch,
// until others' reads pass through it.
constexpr size_t kCopies = 8;
constexpr uint64_t kWeights = 0;  // matrix numbers of the demo's model
constexpr uint64_t kInputs = 1;
constexpr uint16_t kNan = 0x7fff;

struct Size {
  uint64_t n = 0;
  uint64_t k = 0;
  int launches = 0;  // of a batch: some milliseconds
};

Size SizeOf(const std::string& device_kind, bool remote) {
  if (device_kind == "cuda") return remote ? Size{4096, 8192, 4} : Size{16'384, 8192, 32};
  return remote ? Size{512, 256, 1} : Size{1024, 256, 1};
}

class SessionLoad final : public Load {
 public:
  explicit SessionLoad(const NeighboursOptions& options)
      : options_(options), remote_(options.role == "remote"), seed_(std::hash<std::string>()(options.name)) {}

  std::string Prepare() override {
    Status status = Open();
    if (status.ok()) status = Fill();
    return status.ok() ? "" : status.ToString();
  }

  std::string RunBatch() override {
    for (int i = 0; i < size_.launches; ++i) {
      const Tensor& w = w_[static_cast<size_t>(i) % w_.size()];
      if (Status s = session_.Gemm(w, x_address_, y_address_, kBatch); !s.ok()) return s.ToString();
    }
    if (Status s = session_.Synchronize(); !s.ok()) return s.ToString();
    local_bytes_ += remote_ ? 0 : layer_.bytes() * static_cast<uint64_t>(size_.launches);
    return "";
  }

  std::string Check() override {
    std::vector<uint16_t> y(kBatch * layer_.n);
    if (Status s = y_.Download(std::span(y)); !s.ok()) return s.ToString();
    std::vector<uint64_t> rows(kCheckedRows);
    std::generate(rows.begin(), rows.end(), [&] { return random_() % layer_.n; });
    const double error = demo::WorstError(layer_, seed_, kWeights, rows, x_elements_, y, kBatch);
    return error <= demo::kTolerance ? "" : "wrong numbers: worst relative error " + std::to_string(error);
  }

  Sample Now() override {
    const Result<dak_session_info> info = session_.GetInfo();
    if (!info.ok()) return {.time_ns = NowNs()};
    return {.time_ns = NowNs(),
            .bytes = remote_ ? info->remote_bytes : local_bytes_.load(),
            .window_bytes = info->window_bytes};
  }

 private:
  Status Open() {
    Result<Session> session = Session::Open({.runtime_dir = options_.runtime_dir,
                                             .name = options_.name,
                                             .weight = options_.weight,
                                             .hbm_quota_bytes = 0,
                                             .host_quota_bytes = 0,
                                             .cxl_quota_bytes = 0,
                                             .timeout = {}});
    if (!session.ok()) return session.status();
    session_ = *std::move(session);
    const Result<dak_session_info> info = session_.GetInfo();
    if (!info.ok()) return info.status();
    size_ = SizeOf(info->device_kind, remote_);
    layer_ = {.name = "w", .n = size_.n, .k = size_.k};
    return Status();
  }

  Status Fill() {
    const auto spec = [&](const std::string& name, uint64_t rows, uint64_t cols, double ratio) {
      return TensorSpec{.name = name,
                        .data_type = DAK_BF16,
                        .rows = rows,
                        .cols = cols,
                        .offload_ratio = ratio,
                        .remote_tier = DAK_TIER_HOST,
                        .tile_rows = 0};
    };
    std::vector<TensorSpec> specs = {spec("x", kBatch, layer_.k, 0), spec("y", kBatch, layer_.n, 0)};
    for (size_t i = 0; i < (remote_ ? 1 : kCopies); ++i) {
      specs.push_back(spec("w" + std::to_string(i), layer_.n, layer_.k, remote_ ? 1 : 0));
    }
    Result<std::vector<Tensor>> tensors = session_.Allocate(specs);
    if (!tensors.ok()) return tensors.status();
    w_.assign(tensors->begin() + 2, tensors->end());
    y_ = (*tensors)[1];
    const Result<std::vector<dak_tensor_part>> x = (*tensors)[0].GetParts();
    const Result<std::vector<dak_tensor_part>> y = y_.GetParts();
    if (!x.ok()) return x.status();
    if (!y.ok()) return y.status();
    x_address_ = x->front().device_address;
    y_address_ = y->front().device_address;
    std::vector<uint16_t> w(layer_.n * layer_.k);
    for (uint64_t row = 0; row < layer_.n; ++row) {
      demo::FillRow(seed_, kWeights, row, std::span(w).subspan(row * layer_.k, layer_.k));
    }
    for (Tensor& tensor : w_) {
      if (Status s = tensor.Upload(std::span(w)); !s.ok()) return s;
    }
    x_elements_.resize(kBatch * layer_.k);
    demo::FillRow(seed_, kInputs, 0, x_elements_);
    if (Status s = (*tensors)[0].Upload(std::span(x_elements_)); !s.ok()) return s;
    // What a pass leaves unwritten shows.
    const std::vector<uint16_t> poison(kBatch * layer_.n, kNan);
    return y_.Upload(std::span(poison));
  }

  const NeighboursOptions options_;
  const bool remote_;
  const uint64_t seed_;
  Session session_;
  Size size_;
  demo::LinearLayer layer_;
  std::vector<Tensor> w_;
  Tensor y_;
  uint64_t x_address_ = 0;
  uint64_t y_address_ = 0;
  std::vector<uint16_t> x_elements_;
  std::atomic<uint64_t> local_bytes_{0};
  std::mt19937_64 random_{seed_};
};

// Sessions that are there and read nothing.
class CrowdLoad final : public Load {
 public:
  explicit CrowdLoad(const NeighboursOptions& options) : options_(options) {}
  std::string Prepare() override {
    for (int i = 0; i < kCrowd; ++i) {
      Result<Session> session = Session::Open({.runtime_dir = options_.runtime_dir,
                                               .name = options_.name + std::to_string(i),
                                               .weight = options_.weight,
                                               .hbm_quota_bytes = 0,
                                               .host_quota_bytes = 0,
                                               .cxl_quota_bytes = 0,
                                               .timeout = {}});
      if (!session.ok()) return session.status().ToString();
      sessions_.push_back(*std::move(session));
    }
    return "";
  }
  std::string RunBatch() override { return ""; }
  std::string Check() override { return ""; }
  Sample Now() override { return {.time_ns = NowNs()}; }

 private:
  const NeighboursOptions options_;
  std::vector<Session> sessions_;
};

// What idle CTAs are where there are none.
class NoLoad final : public Load {
 public:
  std::string Prepare() override { return ""; }
  std::string RunBatch() override {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // tidy: sleep, because idling is its work
    return "";
  }
  std::string Check() override { return ""; }
  Sample Now() override { return {.time_ns = NowNs()}; }
};

}  // namespace

std::unique_ptr<Load> CreateSessionLoad(const NeighboursOptions& options) {
  if (options.role == "idle") return std::make_unique<NoLoad>();
  if (options.role == "crowd") return std::make_unique<CrowdLoad>(options);
  return std::make_unique<SessionLoad>(options);
}

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace dak::bench
