#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "kernels/attention.h"
#include "kernels/attention_launch.h"
#include "kernels/attention_operands.h"
#include "kernels/attention_plain_launch.h"
#include "kernels/cuda_support.h"

namespace dak::kernels {
namespace {

constexpr uint32_t kMaxHeadDim = 128;

// Encoded maps of pools by what they were encoded from: an engine has one pool a layer, or one in all. Two pools that
// share a place are encoded again whenever they take turns, which costs a microsecond.
class PoolMaps {
 public:
  absl::StatusOr<CUtensorMap> Get(const AttentionShape& shape, uint64_t pool, uint64_t pages, bool promote) {
    const Key key{pool, pages, shape.kv_heads, shape.head_dim, shape.page_tokens, shape.element, promote};
    constexpr uint64_t kMix = 0x9E37'79B9'7F4A'7C15;
    Entry& entry = entries_[(pool * kMix >> 32) % entries_.size()];
    if (entry.key == key) return entry.map;
    entry.key = {};
    DAK_RETURN_IF_ERROR(FromCuda(
        EncodePages(&entry.map, reinterpret_cast<const void*>(pool),
                    {shape.element == ElementType::kF16, pages, shape.kv_heads, shape.page_tokens, shape.head_dim},
                    promote ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_NONE),
        "cuTensorMapEncodeTiled"));
    entry.key = key;
    return entry.map;
  }

 private:
  struct Key {
    uint64_t pool = 0;
    uint64_t pages = 0;
    uint32_t kv_heads = 0;
    uint32_t head_dim = 0;
    uint32_t page_tokens = 0;
    ElementType element = ElementType::kBf16;
    bool promote = false;
    bool operator==(const Key&) const = default;
  };
  struct Entry {
    Key key;
    CUtensorMap map;
  };
  std::vector<Entry> entries_ = std::vector<Entry>(1024);
};

class CudaAttentionRunner final : public AttentionRunner {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionRunner>> Create(int ordinal, const AttentionRunnerOptions& options) {
    ScopedDevice device(ordinal);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    auto runner = std::unique_ptr<CudaAttentionRunner>(new CudaAttentionRunner(ordinal, options));
    DAK_RETURN_IF_ERROR(runner->Initialise());
    return runner;
  }

  absl::Status Launch(const AttentionShape& shape, const AttentionOperands& operands, const LinkView& link,
                      void* stream) override {
    DAK_RETURN_IF_ERROR(CheckAttention(shape));
    DAK_RETURN_IF_ERROR(CheckOperands(shape, operands));
    DAK_RETURN_IF_ERROR(CheckLimit("batch", shape.batch, options_.max_batch));
    DAK_RETURN_IF_ERROR(CheckLimit("heads", shape.heads, options_.max_heads));
    ScopedDevice device(ordinal_);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    AttentionLaunch launch;
    launch.batch = shape.batch;
    launch.heads = shape.heads;
    launch.kv_heads = shape.kv_heads;
    launch.head_dim = shape.head_dim;
    launch.page_tokens = shape.page_tokens;
    launch.max_pages = shape.max_pages;
    launch.f16 = shape.element == ElementType::kF16;
    launch.scale = shape.scale;
    if (shape.remote_pages > 0) launch.remote_counts = reinterpret_cast<const int32_t*>(operands.remote_counts);
    launch.q = reinterpret_cast<const void*>(operands.q);
    launch.out = reinterpret_cast<void*>(operands.out);
    launch.block_table = reinterpret_cast<const int32_t*>(operands.block_table);
    launch.lengths = reinterpret_cast<const int32_t*>(operands.lengths);
    launch.context_ready = operands.context_ready;
    launch.control = link.control;
    launch.report = link.report;
    launch.workspace = {link_, outputs_.get(), statistics_.get(), arrivals_.get()};
    launch.plan = PlanAttention(shape.head_dim, traits_, LinkTraits{});
    launch.ns_per_clock = ns_per_clock_;
    if (plain_) {
      const PlainPools pools{
          {reinterpret_cast<const uint16_t*>(operands.kv_local), reinterpret_cast<const uint16_t*>(operands.kv_remote)},
          {shape.local_pages, shape.remote_pages}};
      return FromCuda(LaunchPlainAttention(launch, pools, static_cast<cudaStream_t>(stream)),
                      "launching plain decode attention");
    }
    if (shape.local_pages > 0) {
      DAK_ASSIGN_OR_RETURN(launch.local_map, maps_.Get(shape, operands.kv_local, shape.local_pages, true));
    }
    if (shape.remote_pages > 0) {
      DAK_ASSIGN_OR_RETURN(launch.remote_map, maps_.Get(shape, operands.kv_remote, shape.remote_pages, false));
    }
    return FromCuda(LaunchAttention(launch, static_cast<cudaStream_t>(stream)), "launching decode attention");
  }

 private:
  CudaAttentionRunner(int ordinal, const AttentionRunnerOptions& options) : ordinal_(ordinal), options_(options) {}

  static absl::Status CheckLimit(absl::string_view field, uint32_t value, uint32_t most) {
    if (value <= most) return absl::OkStatus();
    return InvalidField(field, absl::StrCat(value, " is more than the runner was made for"),
                        absl::StrCat("1 to ", most));
  }

  absl::Status Initialise() {
    DAK_RETURN_IF_ERROR(CheckLimit("options.max_batch", options_.max_batch, kMaxAttentionBatch));
    DAK_RETURN_IF_ERROR(ChooseKernel());
    const uint32_t ctas = PlanAttention(kMaxHeadDim, traits_, LinkTraits{}).ctas;
    const size_t rows = AttentionRows(options_.max_batch, options_.max_heads, ctas);
    link_ = reinterpret_cast<LinkCounters*>(options_.link_counters);
    if (link_ == nullptr) {
      DAK_ASSIGN_OR_RETURN(own_link_, Allocate<LinkCounters>(1, 0));
      link_ = own_link_.get();
    }
    DAK_ASSIGN_OR_RETURN(outputs_, Allocate<float>(rows * kMaxHeadDim, 0));
    DAK_ASSIGN_OR_RETURN(statistics_, Allocate<float2>(rows, 0));
    DAK_ASSIGN_OR_RETURN(arrivals_, Allocate<uint32_t>(size_t{options_.max_batch} * options_.max_heads, 0));
    return FromCuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  absl::Status ChooseKernel() {
    int major = 0;
    int minor = 0;
    int multiprocessors = 0;
    int clock_khz = 0;
    const auto query = [&](int* value, cudaDeviceAttr attribute) {
      return FromCuda(cudaDeviceGetAttribute(value, attribute, ordinal_), "cudaDeviceGetAttribute");
    };
    DAK_RETURN_IF_ERROR(query(&major, cudaDevAttrComputeCapabilityMajor));
    DAK_RETURN_IF_ERROR(query(&minor, cudaDevAttrComputeCapabilityMinor));
    if (major < 8) {
      return WithDetail(absl::FailedPreconditionError(absl::StrCat("device ", ordinal_, " is of architecture ", major,
                                                                   ".", minor, "; kernels are for 8.0 and up")),
                        {.field = {}, .reason = "ARCHITECTURE_UNSUPPORTED", .limit = "8.0"});
    }
    DAK_RETURN_IF_ERROR(query(&multiprocessors, cudaDevAttrMultiProcessorCount));
    DAK_RETURN_IF_ERROR(query(&clock_khz, cudaDevAttrClockRate));
    ns_per_clock_ = 1e6f / static_cast<float>(clock_khz);
    plain_ = options_.plain || major != 9 || minor != 0;
    traits_.multiprocessors = static_cast<uint32_t>(multiprocessors) * (plain_ ? kPlainCtasPerSm : 1);
    return plain_ ? FromCuda(PreparePlainAttention(), "preparing plain decode attention")
                  : FromCuda(PrepareAttention(), "preparing decode attention");
  }

  const int ordinal_;
  const AttentionRunnerOptions options_;
  bool plain_ = false;
  DeviceTraits traits_;
  float ns_per_clock_ = 0;
  PoolMaps maps_;
  LinkCounters* link_ = nullptr;  // its own or a GemmRunner's
  DeviceArray<LinkCounters> own_link_;
  DeviceArray<float> outputs_;
  DeviceArray<float2> statistics_;
  DeviceArray<uint32_t> arrivals_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionRunner>> CreateCudaAttentionRunner(int device_ordinal,
                                                                           const AttentionRunnerOptions& options) {
  return CudaAttentionRunner::Create(device_ordinal, options);
}

}  // namespace dak::kernels
