#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "allocator/base/status_macros.h"
#include "kernels/cuda_support.h"
#include "kernels/gemm.h"
#include "kernels/gemm_launch.h"
#include "kernels/gemm_operands.h"
#include "kernels/gemm_plain_runner.h"
#include "kernels/gemm_tuning.h"
#include "kernels/prefill_launch.h"

namespace dak::kernels {
namespace {

// What TMA needs of a matrix that it writes: its address, and the length of its rows in elements.
constexpr uint64_t kTmaAlignment = 16;
constexpr uint64_t kTmaElements = 8;

DecodeEpilogue EpilogueOf(const GemmOperands& operands) {
  return {reinterpret_cast<const void*>(operands.epilogue.bias),
          reinterpret_cast<const void*>(operands.epilogue.residual),
          operands.epilogue.activation == GemmActivation::kSwiGlu};
}

// Encoded maps of x by what they were encoded from: engines reuse few activation buffers.
class XMaps {
 public:
  absl::StatusOr<CUtensorMap> Get(const void* x, bool f16, uint32_t batch, uint64_t k, uint32_t box_rows) {
    const Key key{x, f16, batch, k, box_rows};
    for (const Entry& entry : entries_) {
      if (entry.key == key) return entry.map;
    }
    Entry& entry = entries_[next_];
    entry.key = {};
    DAK_RETURN_IF_ERROR(FromCuda(EncodeMatrix(&entry.map, x, f16, batch, k, box_rows), "cuTensorMapEncodeTiled"));
    entry.key = key;
    next_ = (next_ + 1) % entries_.size();
    return entry.map;
  }

 private:
  struct Key {
    const void* x = nullptr;
    bool f16 = false;
    uint32_t batch = 0;
    uint64_t k = 0;
    uint32_t box_rows = 0;
    bool operator==(const Key&) const = default;
  };
  struct Entry {
    Key key;
    CUtensorMap map;
  };
  std::array<Entry, 16> entries_{};
  size_t next_ = 0;
};

struct AddressRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool Overlaps(const AddressRange& other) const { return begin < other.end && other.begin < end; }
};

class CudaGemmRunner final : public GemmRunner {
 public:
  static absl::StatusOr<std::unique_ptr<GemmRunner>> Create(int ordinal, const std::string& tuning_path) {
    ScopedDevice device(ordinal);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    auto runner = std::unique_ptr<CudaGemmRunner>(new CudaGemmRunner(ordinal));
    DAK_RETURN_IF_ERROR(runner->Initialise());
    if (!tuning_path.empty()) DAK_RETURN_IF_ERROR(runner->LoadTuning(tuning_path));
    return runner;
  }

  absl::Status Launch(const GemmShape& shape, const GemmOperands& operands, const LinkView& link,
                      void* stream) override {
    DAK_RETURN_IF_ERROR(CheckGemm(shape));
    DAK_RETURN_IF_ERROR(CheckOperands(shape, operands, /*need_maps=*/true));
    ScopedDevice device(ordinal_);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    if (shape.batch > kMaxBatch) return LaunchPrefill(shape, operands, link, static_cast<cudaStream_t>(stream));
    DecodeLaunch launch;
    launch.batch = shape.batch;
    launch.n = shape.n;
    launch.k = shape.k;
    launch.local_rows = shape.local_rows;
    launch.f16 = shape.element == ElementType::kF16;
    launch.plan = Plan(shape);
    DAK_ASSIGN_OR_RETURN(launch.x_map, x_maps_.Get(reinterpret_cast<const void*>(operands.x), launch.f16, shape.batch,
                                                   shape.k, launch.plan.batch_tile / launch.plan.cluster));
    static_assert(sizeof(CUtensorMap) == sizeof(TensorMap));
    if (operands.w_local_map != nullptr) std::memcpy(&launch.w_local_map, operands.w_local_map, sizeof(TensorMap));
    if (operands.w_remote_map != nullptr) std::memcpy(&launch.w_remote_map, operands.w_remote_map, sizeof(TensorMap));
    // A map made for any batch doesn't promote. Encoding takes under a microsecond of CPU time.
    if (launch.plan.promote_local && shape.local_rows > 0 && operands.w_local != 0) {
      DAK_RETURN_IF_ERROR(
          FromCuda(EncodeMatrix(&launch.w_local_map, reinterpret_cast<const void*>(operands.w_local), launch.f16,
                                shape.local_rows, shape.k, kBoxRows, CU_TENSOR_MAP_L2_PROMOTION_L2_256B),
                   "cuTensorMapEncodeTiled"));
    }
    launch.y = reinterpret_cast<void*>(operands.y);
    launch.epilogue = EpilogueOf(operands);
    launch.control = link.control;
    launch.report = link.report;
    launch.workspace = {link_.get(), shares_.get()};
    launch.ns_per_clock = ns_per_clock_;
    launch.overlap_previous = MayOverlap(shape, operands);
    return FromCuda(LaunchDecodeGemm(launch, static_cast<cudaStream_t>(stream)), "launching the decode GEMM");
  }

  uint64_t link_counters() const override { return reinterpret_cast<uint64_t>(link_.get()); }

 private:
  explicit CudaGemmRunner(int ordinal) : ordinal_(ordinal) {}

  absl::Status LaunchPrefill(const GemmShape& shape, const GemmOperands& operands, const LinkView& link,
                             cudaStream_t stream) {
    PrefillLaunch launch;
    launch.batch = shape.batch;
    launch.n = shape.n;
    launch.k = shape.k;
    launch.local_rows = shape.local_rows;
    launch.f16 = shape.element == ElementType::kF16;
    launch.plan = PlanPrefill(shape.batch, shape.n, shape.k, shape.local_rows, traits_, LinkTraits{});
    DAK_ASSIGN_OR_RETURN(launch.x_map, x_maps_.Get(reinterpret_cast<const void*>(operands.x), launch.f16, shape.batch,
                                                   shape.k, kPrefillBatchTile));
    if (operands.w_local_map != nullptr) std::memcpy(&launch.w_local_map, operands.w_local_map, sizeof(TensorMap));
    if (operands.w_remote_map != nullptr) std::memcpy(&launch.w_remote_map, operands.w_remote_map, sizeof(TensorMap));
    launch.y = reinterpret_cast<void*>(operands.y);
    launch.epilogue = EpilogueOf(operands);
    const uint64_t y_columns = OutputColumns(shape.n, operands.epilogue.activation);
    launch.has_y_map = y_columns % kTmaElements == 0 && operands.y % kTmaAlignment == 0;
    if (launch.has_y_map) {
      const auto box_columns = static_cast<uint32_t>(kBoxRows * y_columns / shape.n);
      DAK_RETURN_IF_ERROR(FromCuda(EncodeMatrix(&launch.y_map, launch.y, launch.f16, shape.batch, y_columns, kBoxRows,
                                                CU_TENSOR_MAP_L2_PROMOTION_NONE, box_columns),
                                   "cuTensorMapEncodeTiled"));
    }
    launch.control = link.control;
    launch.report = link.report;
    launch.workspace = {link_.get(), prefill_counters_.get(), ring_.get(), ring_slots_.get()};
    launch.ns_per_clock = ns_per_clock_;
    launch.overlap_previous = MayOverlap(shape, operands);
    return FromCuda(LaunchPrefillGemm(launch, stream), "launching the prefill GEMM");
  }

  absl::Status Initialise() {
    DAK_RETURN_IF_ERROR(QueryDevice(ordinal_, traits_, ns_per_clock_));
    DAK_RETURN_IF_ERROR(FromCuda(PrepareDecodeGemm(), "preparing the decode GEMM"));
    DAK_RETURN_IF_ERROR(FromCuda(CountClusteredCtas(&traits_.clustered_ctas), "cudaOccupancyMaxActiveClusters"));
    DAK_RETURN_IF_ERROR(FromCuda(PreparePrefillGemm(), "preparing the prefill GEMM"));
    // One of each kind is the least, whatever the device.
    const uint32_t ctas = std::max(2u, traits_.multiprocessors);
    DAK_ASSIGN_OR_RETURN(link_, Allocate<LinkCounters>(1, 0));
    DAK_ASSIGN_OR_RETURN(shares_, Allocate<float>(DecodeShares(ctas), kAbsentByte));
    DAK_ASSIGN_OR_RETURN(prefill_counters_, Allocate<PrefillCounters>(1, 0));
    DAK_ASSIGN_OR_RETURN(ring_, Allocate<uint8_t>(kPrefillRingBytes, 0));
    DAK_ASSIGN_OR_RETURN(ring_slots_, Allocate<uint64_t>(kPrefillRingSlots, 0));
    return FromCuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  absl::Status LoadTuning(const std::string& path) {
    DAK_ASSIGN_OR_RETURN(tuning_, GemmTuning::Load(path));
    cudaDeviceProp properties;
    DAK_RETURN_IF_ERROR(FromCuda(cudaGetDeviceProperties(&properties, ordinal_), "cudaGetDeviceProperties"));
    tuning_key_.device = properties.name;
    tuning_.KeepOnly(tuning_key_.device);
    return absl::OkStatus();
  }

  GemmPlan Plan(const GemmShape& shape) {
    const LinkTraits link;
    const GemmPlan plan = PlanGemm(shape.batch, shape.n, shape.k, shape.local_rows, traits_, link);
    if (tuning_.empty()) return plan;
    tuning_key_.f16 = shape.element == ElementType::kF16;
    tuning_key_.batch_tile = plan.batch_tile;
    tuning_key_.n = shape.n;
    tuning_key_.k = shape.k;
    tuning_key_.local_rows = shape.local_rows;
    const TuningChoice* const choice = tuning_.Find(tuning_key_);
    if (choice == nullptr) return plan;
    return ApplyChoice(*choice, shape.n, shape.k, shape.local_rows, traits_, link, plan);
  }

  // A launch may read W before the launch before it has ended, unless that one writes W. Remembers y.
  bool MayOverlap(const GemmShape& shape, const GemmOperands& operands) {
    const uint64_t element_bytes = ElementBytes(shape.element);
    const uint64_t row_bytes = shape.k * element_bytes;
    const auto is_safe = [&](uint64_t address, uint64_t rows) {
      const AddressRange part{address, address + rows * row_bytes};
      return rows == 0 || (address != 0 && !part.Overlaps(last_y_));
    };
    const bool may =
        is_safe(operands.w_local, shape.local_rows) && is_safe(operands.w_remote, shape.n - shape.local_rows);
    const uint64_t y_row_bytes = OutputColumns(shape.n, operands.epilogue.activation) * element_bytes;
    last_y_ = {operands.y, operands.y + shape.batch * y_row_bytes};
    return may;
  }

  const int ordinal_;
  DeviceTraits traits_;
  float ns_per_clock_ = 0;
  GemmTuning tuning_;     // this device's
  TuningKey tuning_key_;  // kept, so that a launch makes no string
  XMaps x_maps_;
  AddressRange last_y_;
  DeviceArray<LinkCounters> link_;
  DeviceArray<float> shares_;
  DeviceArray<PrefillCounters> prefill_counters_;
  DeviceArray<uint8_t> ring_;
  DeviceArray<uint64_t> ring_slots_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GemmRunner>> CreateCudaGemmRunner(int device_ordinal, const GemmRunnerOptions& options) {
  int major = 0;
  int minor = 0;
  DAK_RETURN_IF_ERROR(FromCuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_ordinal),
                               "cudaDeviceGetAttribute"));
  DAK_RETURN_IF_ERROR(FromCuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_ordinal),
                               "cudaDeviceGetAttribute"));
  if (major == 9 && minor == 0 && !options.plain) {
    return CudaGemmRunner::Create(device_ordinal, options.tuning_path);
  }
  return CreatePlainGemmRunner(device_ordinal);
}

}  // namespace dak::kernels
