#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/cuda/numa.h"
#include "kernels/cuda_support.h"
#include "kernels/gemm.h"
#include "kernels/gemm_launch.h"
#include "kernels/probe.h"
#include "kernels/stream.h"

namespace dak::kernels {
namespace {

constexpr int kRepeats = 5;                             // of what is timed; the median counts
constexpr uint64_t kHbmFreeMargin = uint64_t{1} << 30;  // left to others where HBM is nearly full
constexpr uint64_t kBytesPerTiming = uint64_t{2} << 30;
// Few CTAs fill the link, and many slow each other down: as many as the GEMM's remote ones.
constexpr uint32_t kRemoteCtas = 4;
constexpr uint32_t kMatrixIterations = 50'000;  // 30 ms: long enough for the clock to settle at what power allows
constexpr uint64_t kGemmsPerTiming = 16;
constexpr double kMostSteadyS = 10;

template <auto kRelease>
struct Releaser {
  template <class T>
  void operator()(T* pointer) const {
    kRelease(pointer);
  }
};
using HostArray = std::unique_ptr<uint8_t, Releaser<cudaFreeHost>>;
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Releaser<cudaStreamDestroy>>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Releaser<cudaEventDestroy>>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Releaser<cudaGraphDestroy>>;
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Releaser<cudaGraphExecDestroy>>;

// kProbeHostBytes of a NUMA node, registered with the device that is current.
class NodeMemory {
 public:
  NodeMemory() = default;
  ~NodeMemory() {
    if (registered_) cudaHostUnregister(memory_);
    if (memory_ != MAP_FAILED) ::munmap(memory_, kProbeHostBytes);
  }
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  absl::Status Allocate(int node) {
    memory_ = ::mmap(nullptr, kProbeHostBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) return absl::UnavailableError(absl::StrCat("mmap: ", std::strerror(errno)));
    DAK_RETURN_IF_ERROR(BindToNode(memory_, kProbeHostBytes, node));
    const cudaError_t error = cudaHostRegister(memory_, kProbeHostBytes, cudaHostRegisterMapped);
    registered_ = error == cudaSuccess;
    return FromCuda(error, "cudaHostRegister");
  }
  void* get() const { return memory_; }

 private:
  void* memory_ = MAP_FAILED;
  bool registered_ = false;
};

template <class T>
absl::StatusOr<DeviceArray<T>> Allocate(uint64_t count) {
  void* memory = nullptr;
  DAK_RETURN_IF_ERROR(FromCuda(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc"));
  return DeviceArray<T>(static_cast<T*>(memory));
}

absl::StatusOr<Event> MakeEvent() {
  cudaEvent_t event = nullptr;
  DAK_RETURN_IF_ERROR(FromCuda(cudaEventCreate(&event), "cudaEventCreate"));
  return Event(event);
}

// How many CTAs, with how many chunks each, hold `inflight_bytes`: few CTAs until their rings are full.
BulkShape RemoteShape(uint64_t inflight_bytes) {
  const auto chunks = static_cast<uint32_t>((inflight_bytes + kProbeChunkBytes - 1) / kProbeChunkBytes);
  const uint32_t least = (chunks + kMaxStreamStages - 1) / kMaxStreamStages;
  const uint32_t ctas = std::max(least, std::min(kRemoteCtas, chunks));
  return {.ctas = ctas, .stages = (chunks + ctas - 1) / ctas, .chunk_bytes = kProbeChunkBytes};
}

class CudaProbe final : public Probe {
 public:
  static absl::StatusOr<std::unique_ptr<Probe>> Create(int ordinal, int numa_node) {
    ScopedDevice device(ordinal);
    DAK_RETURN_IF_ERROR(FromCuda(device.error(), "cudaSetDevice"));
    auto probe = std::unique_ptr<CudaProbe>(new CudaProbe(ordinal));
    DAK_RETURN_IF_ERROR(probe->Initialise(numa_node));
    return probe;
  }
  ~CudaProbe() override { cudaStreamSynchronize(stream_.get()); }

  absl::StatusOr<double> HbmBytesPerS() override {
    const auto passes = static_cast<uint32_t>(std::max<uint64_t>(1, kBytesPerTiming / hbm_bytes_));
    const double bytes = static_cast<double>(hbm_bytes_) * passes;
    DAK_ASSIGN_OR_RETURN(const double plain_s, Time([&] {
                           return StreamPlain(hbm_.get(), hbm_bytes_, 2 * multiprocessors_, passes, sink_.get(),
                                              stream_.get());
                         }));
    DAK_ASSIGN_OR_RETURN(
        const double bulk_s,
        Time([&] { return StreamBulk(hbm_.get(), hbm_bytes_, LocalShape(multiprocessors_), passes, stream_.get()); }));
    return bytes / std::min(plain_s, bulk_s);
  }

  absl::StatusOr<double> LinkBytesPerS(uint64_t inflight_bytes) override {
    DAK_RETURN_IF_ERROR(CheckInflight(inflight_bytes));
    // About as long with little in flight as with much.
    const uint64_t bytes = std::clamp(inflight_bytes * 512, uint64_t{4} << 20, kProbeHostBytes);
    DAK_ASSIGN_OR_RETURN(const double seconds, Time([&] {
                           return StreamBulk(host_device_, bytes, RemoteShape(inflight_bytes), 1, stream_.get());
                         }));
    return static_cast<double>(bytes) / seconds;
  }

  absl::StatusOr<double> HbmBytesPerSBeside(uint64_t inflight_bytes) override {
    DAK_RETURN_IF_ERROR(CheckInflight(inflight_bytes));
    const BulkShape remote = RemoteShape(inflight_bytes);
    if (remote.ctas >= multiprocessors_) {
      return InvalidField("inflight_bytes", absl::StrCat(inflight_bytes, " take every SM"), "less");
    }
    const BulkShape local = LocalShape(multiprocessors_ - remote.ctas);
    std::array<double, kRepeats> rates;
    for (double& rate : rates) {
      DAK_RETURN_IF_ERROR(FromCuda(ResetClock(clock_.get(), stream_.get()), "resetting the clock"));
      DAK_RETURN_IF_ERROR(FromCuda(StreamBoth(hbm_.get(), hbm_bytes_, local, 1, host_device_, kProbeHostBytes, remote,
                                              clock_.get(), stream_.get()),
                                   "streaming both"));
      StreamClock clock{};
      DAK_RETURN_IF_ERROR(FromCuda(
          cudaMemcpyAsync(&clock, clock_.get(), sizeof(clock), cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpy"));
      DAK_RETURN_IF_ERROR(FromCuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize"));
      if (clock.end_ns <= clock.start_ns) return absl::InternalError("the GPU's timer stands still");
      rate = static_cast<double>(hbm_bytes_) / (static_cast<double>(clock.end_ns - clock.start_ns) * 1e-9);
    }
    return Median(rates);
  }

  absl::StatusOr<double> RoundTripSeconds() override {
    constexpr uint64_t kTrips = 512;
    constexpr BulkShape kOne = {.ctas = 1, .stages = 1, .chunk_bytes = kProbeChunkBytes};
    DAK_ASSIGN_OR_RETURN(const double seconds, Time([&] {
                           return StreamBulk(host_device_, kTrips * kProbeChunkBytes, kOne, 1, stream_.get());
                         }));
    return seconds / kTrips;
  }

  absl::StatusOr<double> CopyEngineBytesPerS(bool to_hbm) override {
    void* target = to_hbm ? static_cast<void*>(hbm_.get()) : host_.get();
    const void* source = to_hbm ? static_cast<const void*>(host_.get()) : hbm_.get();
    const auto direction = to_hbm ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    DAK_ASSIGN_OR_RETURN(const double seconds, Time([&] {
                           return cudaMemcpyAsync(target, source, kProbeHostBytes, direction, stream_.get());
                         }));
    return kProbeHostBytes / seconds;
  }

  absl::StatusOr<double> FlopsPerS() override {
    DAK_ASSIGN_OR_RETURN(const double seconds, Time([&] {
                           return MultiplyOnly(multiprocessors_, kMatrixIterations,
                                               reinterpret_cast<float*>(sink_.get()), stream_.get());
                         }));
    return MatrixFlops(multiprocessors_, kMatrixIterations) / seconds;
  }

  absl::StatusOr<double> GemmSeconds(const ProbeGemm& gemm) override;

 private:
  explicit CudaProbe(int ordinal) : ordinal_(ordinal), device_(ordinal) {}

  absl::Status Initialise(int numa_node);
  absl::Status AllocateHost(int numa_node);
  absl::Status AllocateHbm();

  // 16 KiB chunks, eight a CTA: what HBM needs.
  static BulkShape LocalShape(uint32_t ctas) { return {.ctas = ctas, .stages = 8, .chunk_bytes = 16'384}; }

  static absl::Status CheckInflight(uint64_t bytes) {
    if (bytes >= 1 && bytes <= kMostProbeInflightBytes) return absl::OkStatus();
    return InvalidField("inflight_bytes", absl::StrCat(bytes, " is out of range"),
                        absl::StrCat("1 to ", kMostProbeInflightBytes));
  }

  static double Median(std::array<double, kRepeats> values) {
    std::nth_element(values.begin(), values.begin() + kRepeats / 2, values.end());
    return values[kRepeats / 2];
  }

  // Mean seconds of `count` times in a row what `enqueue` puts on the stream.
  absl::StatusOr<double> TimeRow(const std::function<cudaError_t()>& enqueue, uint64_t count) {
    DAK_RETURN_IF_ERROR(FromCuda(cudaEventRecord(begin_.get(), stream_.get()), "cudaEventRecord"));
    for (uint64_t i = 0; i < count; ++i) {
      DAK_RETURN_IF_ERROR(FromCuda(enqueue(), "launching"));
    }
    DAK_RETURN_IF_ERROR(FromCuda(cudaEventRecord(end_.get(), stream_.get()), "cudaEventRecord"));
    DAK_RETURN_IF_ERROR(FromCuda(cudaEventSynchronize(end_.get()), "cudaEventSynchronize"));
    float milliseconds = 0;
    DAK_RETURN_IF_ERROR(
        FromCuda(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()), "cudaEventElapsedTime"));
    if (!(milliseconds > 0)) return absl::InternalError("the GPU's timer stands still");
    return milliseconds * 1e-3 / static_cast<double>(count);
  }

  // Median seconds of it, after one that isn't counted.
  absl::StatusOr<double> Time(const std::function<cudaError_t()>& enqueue) {
    DAK_RETURN_IF_ERROR(FromCuda(enqueue(), "launching"));
    std::array<double, kRepeats> seconds{};
    for (double& one : seconds) {
      DAK_ASSIGN_OR_RETURN(one, TimeRow(enqueue, 1));
    }
    return Median(seconds);
  }

  // The same under a load that lasts, as ProbeGemm::steady_s says.
  absl::StatusOr<double> TimeSteady(const std::function<cudaError_t()>& enqueue, double steady_s) {
    DAK_ASSIGN_OR_RETURN(const double first_s, Time(enqueue));
    const auto half = static_cast<uint64_t>(std::ceil(0.5 * steady_s / first_s));
    DAK_RETURN_IF_ERROR(TimeRow(enqueue, 2 * half).status());
    return TimeRow(enqueue, half);
  }

  absl::StatusOr<GraphExec> CaptureGemms(const GemmShape& shape, const GemmShape& other);
  absl::Status LaunchGemm(const GemmShape& shape, GemmOperands operands);

  const int ordinal_;
  ScopedDevice device_;  // current as long as the probe lives
  uint32_t multiprocessors_ = 0;
  Stream stream_;
  Event begin_;
  Event end_;
  DeviceArray<uint8_t> hbm_;
  uint64_t hbm_bytes_ = 0;
  HostArray host_;          // or, of a node that was asked for:
  NodeMemory node_memory_;  // one of the two
  void* host_device_ = nullptr;
  DeviceArray<int> sink_;
  DeviceArray<StreamClock> clock_;
  HostArray control_;  // a v1::LinkControl
  std::unique_ptr<GemmRunner> runner_;
};

absl::Status CudaProbe::AllocateHbm() {
  size_t free = 0;
  size_t total = 0;
  DAK_RETURN_IF_ERROR(FromCuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
  for (hbm_bytes_ = kMostProbeHbmBytes; hbm_bytes_ >= kLeastProbeHbmBytes; hbm_bytes_ /= 2) {
    if (hbm_bytes_ > kLeastProbeHbmBytes && free < hbm_bytes_ + kHbmFreeMargin) continue;
    absl::StatusOr<DeviceArray<uint8_t>> memory = Allocate<uint8_t>(hbm_bytes_);
    if (!memory.ok()) continue;  // others may have taken it meanwhile
    hbm_ = *std::move(memory);
    return FromCuda(FillRandom(hbm_.get(), hbm_bytes_ / 2, false, 1, stream_.get()), "filling HBM");
  }
  return WithDetail(absl::ResourceExhaustedError(absl::StrCat("the probe needs ", kLeastProbeHbmBytes >> 20,
                                                              " MiB of HBM, and ", free >> 20, " are free")),
                    {.field = {}, .reason = "POOL_EXHAUSTED", .shortfall_bytes = kLeastProbeHbmBytes});
}

absl::Status CudaProbe::AllocateHost(int numa_node) {
  void* host = nullptr;
  if (numa_node < 0) {
    DAK_RETURN_IF_ERROR(FromCuda(cudaHostAlloc(&host, kProbeHostBytes, cudaHostAllocMapped), "cudaHostAlloc"));
    host_.reset(static_cast<uint8_t*>(host));
  } else {
    DAK_RETURN_IF_ERROR(node_memory_.Allocate(numa_node));
    host = node_memory_.get();
  }
  std::memset(host, 0x3c, kProbeHostBytes);
  return FromCuda(cudaHostGetDevicePointer(&host_device_, host, 0), "cudaHostGetDevicePointer");
}

absl::Status CudaProbe::Initialise(int numa_node) {
  DAK_ASSIGN_OR_RETURN(runner_, CreateCudaGemmRunner(ordinal_));
  int multiprocessors = 0;
  DAK_RETURN_IF_ERROR(FromCuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, ordinal_),
                               "cudaDeviceGetAttribute"));
  multiprocessors_ = static_cast<uint32_t>(multiprocessors);
  cudaStream_t stream = nullptr;
  DAK_RETURN_IF_ERROR(FromCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  stream_.reset(stream);
  DAK_ASSIGN_OR_RETURN(begin_, MakeEvent());
  DAK_ASSIGN_OR_RETURN(end_, MakeEvent());
  DAK_ASSIGN_OR_RETURN(sink_, Allocate<int>(1));
  DAK_ASSIGN_OR_RETURN(clock_, Allocate<StreamClock>(1));
  DAK_RETURN_IF_ERROR(AllocateHbm());
  DAK_RETURN_IF_ERROR(AllocateHost(numa_node));
  void* host = nullptr;
  DAK_RETURN_IF_ERROR(FromCuda(cudaHostAlloc(&host, v1::kControlPageBytes, cudaHostAllocMapped), "cudaHostAlloc"));
  control_.reset(static_cast<uint8_t*>(host));
  std::memset(host, 0, v1::kControlPageBytes);
  return FromCuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
}

absl::Status CudaProbe::LaunchGemm(const GemmShape& shape, GemmOperands operands) {
  const auto encode = [&](uint64_t address, uint64_t rows, TensorMap* map) {
    CUtensorMap encoded;
    DAK_RETURN_IF_ERROR(
        FromCuda(EncodeMatrix(&encoded, reinterpret_cast<const void*>(address), false, rows, shape.k, kBoxRows),
                 "cuTensorMapEncodeTiled"));
    std::memcpy(map->bytes.data(), &encoded, sizeof(map->bytes));
    return absl::OkStatus();
  };
  TensorMap local;
  TensorMap remote;
  DAK_RETURN_IF_ERROR(encode(operands.w_local, shape.local_rows, &local));
  operands.w_local_map = &local;
  LinkView link;
  if (shape.local_rows < shape.n) {
    DAK_RETURN_IF_ERROR(encode(operands.w_remote, shape.n - shape.local_rows, &remote));
    operands.w_remote_map = &remote;
    link.control = reinterpret_cast<const v1::LinkControl*>(control_.get());
  }
  return runner_->Launch(shape, operands, link, stream_.get());
}

// Many launches in a row, each of a W of its own until the memory is used up, so that L2 holds none of them. Every
// other one is of `other`.
absl::StatusOr<GraphExec> CudaProbe::CaptureGemms(const GemmShape& shape, const GemmShape& other) {
  const auto local_bytes = [](const GemmShape& of) { return of.local_rows * of.k * 2; };
  const uint64_t remote_bytes = (shape.n - shape.local_rows) * shape.k * 2;
  const uint64_t x_bytes = shape.batch * shape.k * 2;
  const uint64_t y_bytes = shape.batch * std::max(shape.n, other.n) * 2;
  const uint64_t local_room = hbm_bytes_ - std::min(hbm_bytes_, x_bytes + y_bytes);
  const uint64_t most_bytes = std::max(local_bytes(shape), local_bytes(other));
  if (shape.local_rows == 0 || most_bytes > local_room || remote_bytes > kProbeHostBytes) {
    return InvalidField("n", absl::StrCat(most_bytes, " and ", remote_bytes, " bytes of W"),
                        absl::StrCat("1 to ", local_room, " in HBM and at most ", kProbeHostBytes, " on the host"));
  }
  const auto hbm = reinterpret_cast<uint64_t>(hbm_.get());
  GemmOperands operands;
  operands.x = hbm + hbm_bytes_ - x_bytes;
  operands.y = operands.x - y_bytes;
  DAK_RETURN_IF_ERROR(
      FromCuda(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"));
  absl::Status status;
  uint64_t local_at = 0;
  for (uint64_t i = 0; i < kGemmsPerTiming && status.ok(); ++i) {
    const GemmShape& next = i % 2 == 0 ? shape : other;
    if (local_at + local_bytes(next) > local_room) local_at = 0;
    operands.w_local = hbm + local_at;
    local_at += local_bytes(next);
    if (remote_bytes > 0) {
      operands.w_remote =
          reinterpret_cast<uint64_t>(host_device_) + i % (kProbeHostBytes / remote_bytes) * remote_bytes;
    }
    status = LaunchGemm(next, operands);
  }
  cudaGraph_t captured = nullptr;
  const absl::Status ended = FromCuda(cudaStreamEndCapture(stream_.get(), &captured), "cudaStreamEndCapture");
  const Graph graph(captured);
  DAK_RETURN_IF_ERROR(status);
  DAK_RETURN_IF_ERROR(ended);
  cudaGraphExec_t exec = nullptr;
  DAK_RETURN_IF_ERROR(FromCuda(cudaGraphInstantiate(&exec, graph.get(), 0), "cudaGraphInstantiate"));
  return GraphExec(exec);
}

absl::StatusOr<double> CudaProbe::GemmSeconds(const ProbeGemm& gemm) {
  const GemmShape shape = {.batch = gemm.batch,
                           .n = gemm.n,
                           .k = gemm.k,
                           .local_rows = gemm.n - std::min(gemm.n, gemm.remote_rows),
                           .element = ElementType::kBf16};
  GemmShape other = shape;
  if (gemm.other_n > 0) other.n = other.local_rows = gemm.other_n;
  DAK_RETURN_IF_ERROR(CheckGemm(shape));
  DAK_RETURN_IF_ERROR(CheckGemm(other));
  if (!(gemm.steady_s >= 0 && gemm.steady_s <= kMostSteadyS)) {
    return InvalidField("steady_s", absl::StrCat(gemm.steady_s, " is out of range"),
                        absl::StrCat("0 to ", kMostSteadyS));
  }
  reinterpret_cast<v1::LinkControl*>(control_.get())->window_bytes = gemm.window_bytes;
  DAK_ASSIGN_OR_RETURN(const GraphExec exec, CaptureGemms(shape, other));
  const auto replay = [&] { return cudaGraphLaunch(exec.get(), stream_.get()); };
  DAK_ASSIGN_OR_RETURN(const double seconds, gemm.steady_s > 0 ? TimeSteady(replay, gemm.steady_s) : Time(replay));
  // The product of one run is no operand of the next, but x and y lie among what later ones read: there must be
  // numbers.
  DAK_RETURN_IF_ERROR(FromCuda(FillRandom(hbm_.get(), hbm_bytes_ / 2, false, 1, stream_.get()), "filling HBM"));
  return seconds / kGemmsPerTiming;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Probe>> CreateCudaProbe(int device_ordinal, int numa_node) {
  return CudaProbe::Create(device_ordinal, numa_node);
}

}  // namespace dak::kernels
