#include "tests/bench/dak_bench/pass_peers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr int kPassesPerGraph = 2;
constexpr uint64_t kBuffers = 2;
constexpr uint64_t kManyBytes = uint64_t{2} << 30;  // a pass takes so long then that few repeats do

// Consecutive operations that move together.
struct Unit {
  size_t first = 0;
  size_t count = 0;
  uint64_t bytes = 0;
  uint32_t kind = 0;  // of its shape; whole layers are all of one kind
  bool offloaded = false;
  uint8_t* place = nullptr;  // resident: HBM; offloaded: host
};

std::vector<Unit> UnitsOf(const Pass& pass, bool by_layer) {
  std::vector<Unit> units;
  for (size_t i = 0; i < pass.operations.size(); ++i) {
    const bool joins = by_layer && i > 0 && pass.layer[i] == pass.layer[i - 1];
    if (!joins) units.push_back({.first = i, .kind = by_layer ? 0 : pass.kind[i]});
    units.back().count += 1;
    units.back().bytes += pass.operations[i].bytes();
  }
  return units;
}

uint64_t OffloadedBytes(const std::vector<Unit>& units) {
  uint64_t bytes = 0;
  for (const Unit& unit : units) bytes += unit.offloaded ? unit.bytes : 0;
  return bytes;
}

uint64_t LargestOffloaded(const std::vector<Unit>& units) {
  uint64_t largest = 0;
  for (const Unit& unit : units) largest = unit.offloaded ? std::max(largest, unit.bytes) : largest;
  return largest;
}

// Offloads units of the kinds in the mask, evenly spread, until the others and `buffers` buffers of the largest
// offloaded one fit. False if they never do.
bool Offload(std::vector<Unit>& units, uint32_t kinds, uint64_t buffers, uint64_t budget_bytes) {
  uint64_t all = 0;
  size_t eligible = 0;
  for (const Unit& unit : units) {
    all += unit.bytes;
    eligible += kinds >> unit.kind & 1;
  }
  for (size_t wanted = 0; wanted <= eligible; ++wanted) {
    size_t i = 0;
    for (Unit& unit : units) {
      unit.offloaded = false;
      if ((kinds >> unit.kind & 1) == 0) continue;
      unit.offloaded = (i + 1) * wanted / eligible != i * wanted / eligible;
      ++i;
    }
    if (all - OffloadedBytes(units) + buffers * LargestOffloaded(units) <= budget_bytes) return true;
  }
  return false;
}

// Offloads what an attentive user would: of all sets of kinds, the one that moves the fewest bytes; small operations
// need small buffers, but there are only so many of them.
bool OffloadFewestBytes(std::vector<Unit>& units, uint64_t buffers, uint64_t budget_bytes) {
  uint32_t kinds = 0;
  for (const Unit& unit : units) kinds |= 1u << unit.kind;
  uint32_t best = 0;
  uint64_t least = 0;
  for (uint32_t some = 1; some <= kinds; ++some) {
    if (!Offload(units, some, buffers, budget_bytes)) continue;
    const uint64_t bytes = OffloadedBytes(units);
    if (best != 0 && bytes >= least) continue;
    best = some;
    least = bytes;
  }
  return best != 0 && Offload(units, best, buffers, budget_bytes);
}

// Gives every unit its memory: residents from HBM's start, offloaded ones from the host's; buffers come after.
uint8_t* Place(const Context& context, std::vector<Unit>& units) {
  uint64_t hbm = 0;
  uint64_t host = 0;
  for (Unit& unit : units) {
    if (unit.offloaded) {
      unit.place = context.TakeHost(host, unit.bytes);
    } else {
      unit.place = context.hbm + hbm;
      hbm += unit.bytes;
    }
  }
  if (hbm > context.hbm_bytes) Fail("pass", "the bench's memory is too small");
  return context.hbm + hbm;
}

class Runner {
 public:
  Runner(Context& context, const Pass& pass) : context_(context), pass_(pass) {
    DAK_CUDA(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking));
  }
  ~Runner() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
    cudaStreamDestroy(copies_);
  }

  void Compute(const Unit& unit, const uint8_t* weights) {
    for (size_t i = unit.first; i < unit.first + unit.count; ++i) {
      const Operation& op = pass_.operations[i];
      context_.cublas->Gemm(context_.x, weights, context_.y, op.batch, op.n, op.k, op.n, context_.f16, context_.stream);
      weights += op.bytes();
    }
  }

  void CopyOnUse(const std::vector<Unit>& units, uint8_t* buffer) {
    for (const Unit& unit : units) {
      if (unit.offloaded) Copy(buffer, unit, context_.stream);
      Compute(unit, unit.offloaded ? buffer : unit.place);
    }
  }

  void ZeroCopy(const std::vector<Unit>& units) {
    for (const Unit& unit : units) Compute(unit, unit.place);
  }

  // Copies run ahead on a stream of their own, as far as two buffers let them.
  void Prefetch(const std::vector<Unit>& units, uint8_t* buffers, uint64_t buffer_bytes) {
    std::vector<const Unit*> queue;
    for (int i = 0; i < kPassesPerGraph; ++i) {
      for (const Unit& unit : units) {
        if (unit.offloaded) queue.push_back(&unit);
      }
    }
    std::vector<cudaEvent_t> copied(queue.size());
    const auto start_copy = [&](size_t i) {
      if (i >= queue.size()) return;
      Copy(buffers + i % kBuffers * buffer_bytes, *queue[i], copies_);
      copied[i] = Record(copies_);
    };
    DAK_CUDA(cudaStreamWaitEvent(copies_, Record(context_.stream)));
    for (size_t i = 0; i < kBuffers; ++i) start_copy(i);
    size_t next = 0;
    for (int i = 0; i < kPassesPerGraph; ++i) {
      for (const Unit& unit : units) {
        if (!unit.offloaded) {
          Compute(unit, unit.place);
          continue;
        }
        DAK_CUDA(cudaStreamWaitEvent(context_.stream, copied[next]));
        Compute(unit, buffers + next % kBuffers * buffer_bytes);
        if (next + kBuffers < queue.size()) {
          DAK_CUDA(cudaStreamWaitEvent(copies_, Record(context_.stream)));
          start_copy(next + kBuffers);
        }
        ++next;
      }
    }
    DAK_CUDA(cudaStreamWaitEvent(context_.stream, Record(copies_)));
  }

 private:
  cudaEvent_t Record(cudaStream_t stream) {
    cudaEvent_t event = nullptr;
    DAK_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    DAK_CUDA(cudaEventRecord(event, stream));
    events_.push_back(event);
    return event;
  }
  static void Copy(uint8_t* target, const Unit& unit, cudaStream_t stream) {
    DAK_CUDA(cudaMemcpyAsync(target, unit.place, unit.bytes, cudaMemcpyHostToDevice, stream));
  }

  Context& context_;
  const Pass& pass_;
  cudaStream_t copies_ = nullptr;
  std::vector<cudaEvent_t> events_;
};

}  // namespace

uint64_t Pass::bytes() const {
  uint64_t sum = 0;
  for (const Operation& operation : operations) sum += operation.bytes();
  return sum;
}

const char* PeerName(Peer peer) {
  switch (peer) {
    case Peer::kZeroCopy:
      return "zero_copy";
    case Peer::kCopyOnUse:
      return "copy_on_use";
    case Peer::kPrefetchLayers:
      return "prefetch_layers";
    case Peer::kPrefetchOperations:
      return "prefetch_ops";
    case Peer::kPrefetchFewest:
      return "prefetch_tuned";
  }
  return "";
}

PeerResult MeasurePeer(Context& context, const Pass& pass, Peer peer, uint64_t budget_bytes, double steady_s) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  std::vector<Unit> units = UnitsOf(pass, peer == Peer::kPrefetchLayers);
  const uint64_t buffers = peer == Peer::kZeroCopy ? 0 : peer == Peer::kCopyOnUse ? 1 : kBuffers;
  const bool fewest = peer == Peer::kPrefetchFewest || peer == Peer::kCopyOnUse;
  const bool fits =
      fewest ? OffloadFewestBytes(units, buffers, budget_bytes) : Offload(units, ~uint32_t{0}, buffers, budget_bytes);
  if (!fits) return {kNan, kNan, kNan};
  uint8_t* buffer = Place(context, units);
  const uint64_t offloaded = OffloadedBytes(units);
  const uint64_t buffer_bytes = LargestOffloaded(units);
  Runner runner(context, pass);
  const double seconds = TimeGraph(
      context.stream,
      [&] {
        if (buffers == kBuffers) {
          runner.Prefetch(units, buffer, buffer_bytes);
          return;
        }
        for (int i = 0; i < kPassesPerGraph; ++i) {
          if (peer == Peer::kZeroCopy) {
            runner.ZeroCopy(units);
          } else {
            runner.CopyOnUse(units, buffer);
          }
        }
      },
      offloaded > kManyBytes ? 3 : 5, 1, steady_s);
  return {seconds / kPassesPerGraph, static_cast<double>(offloaded) / static_cast<double>(pass.bytes()),
          static_cast<double>(buffers * buffer_bytes)};
}

}  // namespace dak::bench
