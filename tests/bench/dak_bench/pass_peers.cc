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

// Consecutive operations that move together.
struct Unit {
  size_t first = 0;
  size_t count = 0;
  uint64_t bytes = 0;
  bool offloaded = false;
  uint8_t* place = nullptr;  // resident: HBM; offloaded: host
};

std::vector<Unit> UnitsOf(const Pass& pass, bool by_layer) {
  std::vector<Unit> units;
  for (size_t i = 0; i < pass.operations.size(); ++i) {
    const bool joins = by_layer && i > 0 && pass.layer[i] == pass.layer[i - 1];
    if (!joins) units.push_back({.first = i});
    units.back().count += 1;
    units.back().bytes += pass.operations[i].bytes();
  }
  return units;
}

// Offloads units, evenly spread, until the others and `buffers` buffers of the largest offloaded one fit. False if they
// never do.
bool Offload(std::vector<Unit>& units, uint64_t buffers, uint64_t budget_bytes) {
  for (size_t wanted = 0; wanted <= units.size(); ++wanted) {
    uint64_t resident = 0;
    uint64_t largest = 0;
    for (size_t i = 0; i < units.size(); ++i) {
      units[i].offloaded = (i + 1) * wanted / units.size() != i * wanted / units.size();
      if (units[i].offloaded) {
        largest = std::max(largest, units[i].bytes);
      } else {
        resident += units[i].bytes;
      }
    }
    if (resident + buffers * largest <= budget_bytes) return true;
  }
  return false;
}

// Gives every unit its memory: residents from HBM's start, offloaded ones from the host's; buffers come after.
uint8_t* Place(const Context& context, std::vector<Unit>& units) {
  uint64_t hbm = 0;
  uint64_t host = 0;
  for (Unit& unit : units) {
    uint64_t& used = unit.offloaded ? host : hbm;
    unit.place = (unit.offloaded ? context.host : context.hbm) + used;
    used += unit.bytes;
  }
  if (hbm > context.hbm_bytes || host > context.host_bytes) Fail("pass", "the bench's memory is too small");
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
  }
  return "";
}

PeerResult MeasurePeer(Context& context, const Pass& pass, Peer peer, uint64_t budget_bytes) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  std::vector<Unit> units = UnitsOf(pass, peer == Peer::kPrefetchLayers);
  const uint64_t buffers = peer == Peer::kZeroCopy ? 0 : peer == Peer::kCopyOnUse ? 1 : kBuffers;
  if (!Offload(units, buffers, budget_bytes)) return {kNan, kNan};
  uint8_t* buffer = Place(context, units);
  uint64_t offloaded = 0;
  uint64_t buffer_bytes = 0;
  for (const Unit& unit : units) {
    if (!unit.offloaded) continue;
    offloaded += unit.bytes;
    buffer_bytes = std::max(buffer_bytes, unit.bytes);
  }
  Runner runner(context, pass);
  const double seconds = TimeGraph(
      context.stream,
      [&] {
        if (peer == Peer::kPrefetchLayers || peer == Peer::kPrefetchOperations) {
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
      5, 1);
  return {seconds / kPassesPerGraph, static_cast<double>(offloaded) / static_cast<double>(pass.bytes())};
}

}  // namespace dak::bench
