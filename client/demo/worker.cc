#include "client/demo/worker.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <future>
#include <numeric>
#include <random>
#include <vector>

#include "client/demo/model.h"
#include "dak/dak.hpp"

namespace dak::demo {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kStatInterval = std::chrono::milliseconds(200);
constexpr uint64_t kInputs = 1'000'000;    // offset of the inputs' matrix numbers from the weights'
constexpr uint64_t kCheckedRows = 96;      // of a large layer; small ones are checked whole
constexpr uint64_t kSmallLayer = 1 << 20;  // elements of W
constexpr uint16_t kNan = 0x7fff;

// How often a pass is checked, by a thread of its own, so that passes go on meanwhile.
constexpr auto kCheckInterval = std::chrono::milliseconds(250);

class Worker {
 public:
  explicit Worker(const Options& options) : options_(options), seed_(std::hash<std::string>()(options.name)) {}

  Status Load();
  Status Pass();
  void Finish() { EndCheck(/*wait=*/true); }
  void SayReady() const { Say("ready " + std::to_string(hbm_share_) + " " + std::to_string(plan_.predicted_s)); }
  void SayStat() const {
    Say("stat " + std::to_string(passes_) + " " + std::to_string(checked_) + " " + std::to_string(worst_error_));
  }
  static void Say(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  Status Plan();
  Status Allocate();
  Status UploadRows(Tensor tensor, uint64_t matrix, uint64_t rows, uint64_t cols);
  Status UploadInputs();
  // Takes the last pass's inputs and outputs and has them checked.
  Status BeginCheck();
  // Takes the result if there is one, or waits for it.
  void EndCheck(bool wait);

  struct Sample {
    std::vector<uint16_t> x;
    std::vector<uint16_t> y;
    std::vector<uint64_t> rows;
  };
  double WorstOf(const std::vector<Sample>& samples) const;

  const Options& options_;
  const uint64_t seed_;
  Model model_;
  Session session_;
  dak::Plan plan_;
  double hbm_share_ = 0;
  std::vector<Tensor> weights_;
  std::vector<Tensor> inputs_;
  std::vector<Tensor> outputs_;
  std::vector<uint64_t> input_addresses_;
  std::vector<uint64_t> output_addresses_;
  uint64_t passes_ = 0;
  uint64_t begun_ = 0;
  uint64_t checked_ = 0;
  Clock::time_point last_check_;
  std::future<double> check_;
  double worst_error_ = 0;
  std::mt19937_64 random_{seed_};
};

Status Worker::Load() {
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
  model_ = MakeModel(info->device_kind, options_.layers, options_.batch);
  if (Status s = Plan(); !s.ok()) return s;
  if (Status s = Allocate(); !s.ok()) return s;
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    if (Status s = UploadRows(weights_[i], i, model_.layers[i].n, model_.layers[i].k); !s.ok()) return s;
  }
  return UploadInputs();
}

Status Worker::Plan() {
  std::vector<Operation> operations;
  for (const LinearLayer& layer : model_.layers) {
    operations.push_back({.name = layer.name,
                          .bytes = layer.bytes(),
                          .flops = 2.0 * static_cast<double>(layer.n * layer.k) * model_.batch,
                          .min_ratio = 0,
                          .max_ratio = 1});
  }
  const auto budget = static_cast<uint64_t>(options_.hbm_share * static_cast<double>(model_.bytes()));
  Result<dak::Plan> plan = session_.PlanPass(operations, budget);
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  return Status();
}

Status Worker::Allocate() {
  std::vector<TensorSpec> weights;
  std::vector<TensorSpec> activations;
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const LinearLayer& layer = model_.layers[i];
    const auto spec = [](const std::string& name, uint64_t rows, uint64_t cols, double ratio) {
      return TensorSpec{.name = name,
                        .data_type = DAK_BF16,
                        .rows = rows,
                        .cols = cols,
                        .offload_ratio = ratio,
                        .remote_tier = DAK_TIER_HOST,
                        .tile_rows = 0};
    };
    weights.push_back(spec(layer.name, layer.n, layer.k, plan_.ratios[i]));
    activations.push_back(spec(layer.name + ".x", model_.batch, layer.k, 0));
    activations.push_back(spec(layer.name + ".y", model_.batch, layer.n, 0));
  }
  Result<std::vector<Tensor>> allocated = session_.Allocate(weights, "weights");
  if (!allocated.ok()) return allocated.status();
  weights_ = *std::move(allocated);
  uint64_t in_hbm = 0;
  for (const Tensor& tensor : weights_) {
    const Result<std::vector<dak_tensor_part>> parts = tensor.GetParts();
    if (!parts.ok()) return parts.status();
    for (const dak_tensor_part& part : *parts) in_hbm += part.tier == DAK_TIER_HBM ? part.bytes : 0;
  }
  hbm_share_ = static_cast<double>(in_hbm) / static_cast<double>(model_.bytes());
  allocated = session_.Allocate(activations, "activations");
  if (!allocated.ok()) return allocated.status();
  for (size_t i = 0; i < allocated->size(); ++i) {
    const Result<std::vector<dak_tensor_part>> parts = (*allocated)[i].GetParts();
    if (!parts.ok()) return parts.status();
    (i % 2 == 0 ? inputs_ : outputs_).push_back((*allocated)[i]);
    (i % 2 == 0 ? input_addresses_ : output_addresses_).push_back(parts->front().device_address);
  }
  return Status();
}

Status Worker::UploadRows(Tensor tensor, uint64_t matrix, uint64_t rows, uint64_t cols) {
  constexpr uint64_t kBlockBytes = uint64_t{8} << 20;
  const uint64_t block_rows = std::max<uint64_t>(1, kBlockBytes / (cols * sizeof(uint16_t)));
  std::vector<uint16_t> block;
  for (uint64_t first = 0; first < rows; first += block_rows) {
    const uint64_t count = std::min(block_rows, rows - first);
    block.resize(count * cols);
    for (uint64_t r = 0; r < count; ++r) FillRow(seed_, matrix, first + r, std::span(block).subspan(r * cols, cols));
    if (Status s = tensor.Upload(std::span(block), first * cols * sizeof(uint16_t)); !s.ok()) return s;
  }
  return Status();
}

// New inputs, and outputs that aren't numbers: what a pass leaves unwritten shows.
Status Worker::UploadInputs() {
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const uint64_t matrix = kInputs * (1 + begun_) + i;
    if (Status s = UploadRows(inputs_[i], matrix, model_.batch, model_.layers[i].k); !s.ok()) return s;
    const std::vector<uint16_t> poison(model_.batch * model_.layers[i].n, kNan);
    if (Status s = outputs_[i].Upload(std::span(poison)); !s.ok()) return s;
  }
  return Status();
}

Status Worker::Pass() {
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const Status s = session_.Gemm(weights_[i], input_addresses_[i], output_addresses_[i], model_.batch);
    if (!s.ok()) return s;
  }
  if (Status s = session_.Synchronize(); !s.ok()) return s;
  ++passes_;
  EndCheck(/*wait=*/false);
  if (check_.valid() || Clock::now() - last_check_ < kCheckInterval) return Status();
  return BeginCheck();
}

Status Worker::BeginCheck() {
  std::vector<Sample> samples(model_.layers.size());
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const LinearLayer& layer = model_.layers[i];
    Sample& sample = samples[i];
    sample.x.resize(model_.batch * layer.k);
    sample.y.resize(model_.batch * layer.n);
    if (Status s = inputs_[i].Download(std::span(sample.x)); !s.ok()) return s;
    if (Status s = outputs_[i].Download(std::span(sample.y)); !s.ok()) return s;
    const bool small = layer.n * layer.k <= kSmallLayer;
    sample.rows.resize(small ? layer.n : kCheckedRows);
    std::iota(sample.rows.begin(), sample.rows.end(), uint64_t{0});
    if (!small) std::generate(sample.rows.begin(), sample.rows.end(), [&] { return random_() % layer.n; });
  }
  last_check_ = Clock::now();
  check_ = std::async(std::launch::async, [this, samples = std::move(samples)] { return WorstOf(samples); });
  ++begun_;
  return UploadInputs();
}

double Worker::WorstOf(const std::vector<Sample>& samples) const {
  double worst = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& sample = samples[i];
    worst = std::max(worst, WorstError(model_.layers[i], seed_, i, sample.rows, sample.x, sample.y, model_.batch));
  }
  return worst;
}

void Worker::EndCheck(bool wait) {
  if (!check_.valid()) return;
  if (!wait && check_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  worst_error_ = std::max(worst_error_, check_.get());
  ++checked_;
}

// True once the demo wants an end.
bool ToldToQuit() {
  pollfd polled{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  return poll(&polled, 1, 0) > 0;
}

int Fail(const Status& status) {
  Worker::Say("failed " + status.ToString());
  return 1;
}

}  // namespace

int RunWorker(const Options& options) {
  Worker worker(options);
  if (const Status s = worker.Load(); !s.ok()) return Fail(s);
  worker.SayReady();
  Clock::time_point next_stat = Clock::now();
  while (!ToldToQuit()) {
    if (const Status s = worker.Pass(); !s.ok()) return Fail(s);
    if (Clock::now() < next_stat) continue;
    worker.SayStat();
    next_stat = Clock::now() + kStatInterval;
  }
  worker.Finish();
  worker.SayStat();
  return 0;
}

}  // namespace dak::demo
