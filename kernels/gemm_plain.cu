// The GEMM by plain loads, for architecture 8.0 and up. docs/kernels.md says what it gives up for that.
//
// A CTA works on whole tiles of 64 rows, one after another: four warps of 16 rows, the batch in their sums. Local CTAs
// take HBM's tiles, the first few CTAs the remote ones; those obey the window and report as the decode kernel's do,
// with the same meter (decode_remote.cuh).
#include <algorithm>
#include <type_traits>

#include "kernels/decode_common.cuh"
#include "kernels/decode_remote.cuh"
#include "kernels/gemm_plain_launch.h"
#include "kernels/ptx/async_copy.h"
#include "kernels/ptx/mma.h"
#include "kernels/tile_writer.cuh"

namespace dak::kernels {
namespace {

constexpr uint32_t kWorkers = 128;  // threads that load and multiply; the meter's warp comes after them
constexpr uint32_t kPlainThreads = kWorkers + kWarpThreads;
constexpr uint32_t kWorkersBarrier = 1;
constexpr uint32_t kVectorBytes = 16;
constexpr uint32_t kVectorElements = 8;
constexpr uint32_t kRowVectors = kChunkColumns / kVectorElements;
// A row and 16 bytes, so that eight rows' columns lie in different banks.
constexpr uint32_t kRowBytes = kChunkColumns * 2 + kVectorBytes;
constexpr uint32_t kPlainRemoteCtas = 8;
constexpr uint32_t kLocalCtasPerSm = 2;
// A wait that took longer was for the read itself, so that its end was seen.
constexpr uint32_t kBlockedClocks = 200;
static_assert(kPlainRemoteCtas <= kMaxRemoteCtas);

template <int kBatchTile, bool kF16Elements>
struct PlainTraits {
  static constexpr int kN = kBatchTile;
  static constexpr bool kF16 = kF16Elements;
  static constexpr uint32_t kStages = kBatchTile <= 64 ? 4 : 2;
  static constexpr uint32_t kWBytes = kBoxRows * kRowBytes;
  static constexpr uint32_t kStageBytes = kWBytes + kBatchTile * kRowBytes;
  static constexpr uint32_t kLaunchBytes = kStages * kStageBytes;
  static_assert(kLaunchBytes <= 97 * 1024, "more than architecture 8.6 has");
  static_assert(kN % 16 == 0 && kStages <= 4);
};

struct PlainParams {
  DecodeParams decode;  // without maps
  const uint16_t* x;
  const uint16_t* w_local;
  const uint16_t* w_remote;
};

struct PlainShared {
  DecodeShared meter;
  uint32_t room;  // stages that may be filled now
};

__device__ inline WorkRange DividePlainWork(const DecodeParams& p) {
  WorkRange work{};
  work.remote = blockIdx.x < p.remote_ctas;
  work.worker = work.remote ? blockIdx.x : blockIdx.x - p.remote_ctas;
  work.workers = work.remote ? p.remote_ctas : p.local_ctas;
  work.tile_rows = kBoxRows;
  work.k_chunks = p.k_chunks;
  work.part_rows = work.remote ? p.n - p.local_rows : p.local_rows;
  work.part_offset = work.remote ? p.local_rows : 0;
  const uint64_t tiles = (work.part_rows + kBoxRows - 1) / kBoxRows;
  work.end = (tiles - work.worker + work.workers - 1) / work.workers * p.k_chunks;  // of this CTA
  return work;
}

// The i-th chunk of a CTA: every `workers`-th tile, each from its start to its end.
__device__ inline Cursor ChunkAt(const WorkRange& work, uint64_t i) {
  const auto tile = static_cast<uint32_t>(work.worker + i / work.k_chunks * work.workers);
  return {tile, static_cast<uint32_t>(i % work.k_chunks), 0};
}

// ---- Loads ----------------------------------------------------------------------------------------------------------

// Rows [row, row + count) of a matrix, columns from `column` on: zero past its ends.
__device__ inline void CopyRows(uint32_t target, const uint16_t* matrix, uint64_t rows, uint64_t columns, uint64_t row,
                                uint32_t column, uint32_t count, uint32_t thread) {
  for (uint32_t i = thread; i < count * kRowVectors; i += kWorkers) {
    const uint64_t from_row = row + i / kRowVectors;
    const uint64_t from_column = column + i % kRowVectors * kVectorElements;
    const bool inside = from_row < rows && from_column < columns;
    ptx::CopyAsync(target + i / kRowVectors * kRowBytes + i % kRowVectors * kVectorBytes,
                   inside ? matrix + from_row * columns + from_column : matrix, inside ? kVectorBytes : 0);
  }
}

template <class Traits>
__device__ inline void LoadStage(const PlainParams& p, const WorkRange& work, uint32_t stage, const Cursor& at,
                                 uint32_t thread) {
  const DecodeParams& d = p.decode;
  const uint32_t column = at.chunk * kChunkColumns;
  CopyRows(stage, work.remote ? p.w_remote : p.w_local, work.part_rows, d.k, uint64_t{at.tile} * kBoxRows, column,
           kBoxRows, thread);
  CopyRows(stage + Traits::kWBytes, p.x, d.batch, d.k, 0, column, Traits::kN, thread);
  ptx::CommitCopies();
}

// Waits until at most `pending` of this thread's stages are unfinished.
__device__ inline void WaitForStages(uint64_t pending) {
  if (pending == 0) {
    ptx::WaitForCopies<0>();
  } else if (pending == 1) {
    ptx::WaitForCopies<1>();
  } else if (pending == 2) {
    ptx::WaitForCopies<2>();
  } else {
    ptx::WaitForCopies<3>();
  }
}

// What the first thread of a remote CTA keeps: reads in flight, within the share that the meter gives.
template <class Traits>
class PlainGate {
 public:
  __device__ PlainGate(const DecodeParams& p, const WorkRange& work, DecodeShared& shared)
      : p_(p), work_(work), shared_(shared) {}

  // Stages that may be filled beside `pending` others.
  __device__ uint32_t Room(uint32_t pending) const {
    const uint32_t share = work_.remote ? shared_.words.share_bytes.Load() / kBoxBytes : Traits::kStages;
    const uint32_t most = share < Traits::kStages ? share : Traits::kStages;
    return most > pending ? most - pending : 0;
  }

  __device__ void OnIssue(const Cursor& at, uint64_t i) {
    if (!work_.remote) return;
    const uint64_t rows_left = work_.part_rows - uint64_t{at.tile} * kBoxRows;
    const uint32_t columns_left = p_.k - at.chunk * kChunkColumns;
    const uint32_t rows = rows_left < kBoxRows ? static_cast<uint32_t>(rows_left) : kBoxRows;
    const uint32_t bytes = rows * (columns_left < kChunkColumns ? columns_left : kChunkColumns) * 2;
    shared_.issues[i % Traits::kStages] = make_uint2(static_cast<uint32_t>(clock()), bytes);
    shared_.words.issued_bytes.Store(shared_.words.issued_bytes.Load() + bytes);
    const auto inflight =
        static_cast<uint32_t>(shared_.words.issued_bytes.Load() - shared_.words.returned_bytes.Load());
    if (inflight > shared_.words.most_inflight_bytes.Load()) shared_.words.most_inflight_bytes.Store(inflight);
  }

  __device__ void OnReturn(uint64_t i, bool blocked) {
    if (!work_.remote) return;
    const uint2 issue = shared_.issues[i % Traits::kStages];
    if (blocked) {
      shared_.words.round_trip_clocks.Store(shared_.words.round_trip_clocks.Load() +
                                            (static_cast<uint32_t>(clock()) - issue.x));
      shared_.words.round_trips.Store(shared_.words.round_trips.Load() + 1);
    }
    shared_.words.returned_bytes.Store(shared_.words.returned_bytes.Load() + issue.y);
  }

 private:
  const DecodeParams& p_;
  const WorkRange& work_;
  DecodeShared& shared_;
};

// ---- Products -------------------------------------------------------------------------------------------------------

// Adds a stage's products to a warp's 16 rows.
template <class Traits>
__device__ inline void MultiplyStage(uint32_t stage, float (&sums)[Traits::kN / 8][4], uint32_t thread) {
  const uint32_t warp = thread / kWarpThreads;
  const uint32_t row = thread % 8;
  const uint32_t matrix = thread % kWarpThreads / 8;
  const uint32_t w = stage + (warp * 16 + matrix % 2 * 8 + row) * kRowBytes + matrix / 2 * kVectorBytes;
  const uint32_t x = stage + Traits::kWBytes + (matrix / 2 * 8 + row) * kRowBytes + matrix % 2 * kVectorBytes;
#pragma unroll
  for (uint32_t step = 0; step < kChunkColumns / 16; ++step) {
    uint32_t a[4];
    ptx::LoadMatrices(a, w + step * 2 * kVectorBytes);
#pragma unroll
    for (int j = 0; j < Traits::kN / 8; j += 2) {
      uint32_t b[4];
      ptx::LoadMatrices(b, x + j * 8 * kRowBytes + step * 2 * kVectorBytes);
      ptx::Mma<Traits::kF16>(sums[j], a, b[0], b[1]);
      ptx::Mma<Traits::kF16>(sums[j + 1], a, b[2], b[3]);
    }
  }
}

template <class Traits>
__device__ inline void StoreSums(const DecodeParams& p, const WorkRange& work, uint32_t tile,
                                 float (&sums)[Traits::kN / 8][4], uint32_t thread) {
  const uint64_t row = uint64_t{tile} * kBoxRows;
  const uint64_t left = work.part_rows - row;
  const TileWriter<Traits::kF16> writer(
      {p.y, p.epilogue, p.n, p.batch, work.part_offset + row, left < kBoxRows ? static_cast<uint32_t>(left) : kBoxRows},
      thread);
#pragma unroll
  for (int j = 0; j < Traits::kN / 8; ++j) {
    const float quad[1][4] = {{sums[j][0], sums[j][1], sums[j][2], sums[j][3]}};
    writer.Write(j, quad);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j][i] = 0;
  }
}

template <class Traits>
__device__ inline void RunWorkers(const PlainParams& p, const WorkRange& work, uint32_t ring, PlainShared& shared) {
  const uint32_t thread = threadIdx.x;
  PlainGate<Traits> gate(p.decode, work, shared.meter);
  if (work.remote && thread == 0) OpenLink(p.decode, work, shared.meter);
  float sums[Traits::kN / 8][4] = {};
  uint64_t issued = 0;
  for (uint64_t done = 0; done < work.end; ++done) {
    // Fill what may be filled; the barrier also says that nobody reads the stage before this one any more.
    while (true) {
      if (thread == 0) shared.room = gate.Room(static_cast<uint32_t>(issued - done));
      ptx::NamedBarrier(kWorkersBarrier, kWorkers);
      for (uint32_t room = shared.room; room > 0 && issued < work.end; --room, ++issued) {
        const Cursor at = ChunkAt(work, issued);
        if (thread == 0) gate.OnIssue(at, issued);
        LoadStage<Traits>(p, work, ring + issued % Traits::kStages * Traits::kStageBytes, at, thread);
      }
      if (issued > done) break;
      ptx::NamedBarrier(kWorkersBarrier, kWorkers);
    }
    const auto start = static_cast<uint32_t>(clock());
    WaitForStages(issued - done - 1);
    ptx::NamedBarrier(kWorkersBarrier, kWorkers);
    if (thread == 0) gate.OnReturn(done, static_cast<uint32_t>(clock()) - start > kBlockedClocks);
    MultiplyStage<Traits>(ring + done % Traits::kStages * Traits::kStageBytes, sums, thread);
    const Cursor at = ChunkAt(work, done);
    if (at.chunk + 1 == work.k_chunks) StoreSums<Traits>(p.decode, work, at.tile, sums, thread);
  }
  if (thread == 0) shared.meter.words.drained.Store(1);
}

template <class Traits>
__global__ __launch_bounds__(kPlainThreads) void PlainGemm(const __grid_constant__ PlainParams p) {
  extern __shared__ __align__(16) uint8_t stages[];
  __shared__ PlainShared shared;
  const WorkRange work = DividePlainWork(p.decode);
  if (threadIdx.x == 0) shared.meter.words.Reset();
  __syncthreads();
  if (threadIdx.x < kWorkers) {
    RunWorkers<Traits>(p, work, ptx::SharedAddress(stages), shared);
  } else if (threadIdx.x == kWorkers) {
    if (work.remote) {
      RunMeter(p.decode, work, shared.meter);
    } else if (blockIdx.x == 0) {
      CountLocalLaunch(p.decode);
    }
  }
}

// Calls `visit` with the traits of the instance for `batch`.
template <class Visitor>
void ForBatch(uint32_t batch, bool f16, const Visitor& visit) {
  const auto with_batch = [&](auto n) {
    if (f16) {
      visit(PlainTraits<n(), true>());
    } else {
      visit(PlainTraits<n(), false>());
    }
  };
  if (batch <= 16) {
    with_batch(std::integral_constant<int, 16>());
  } else if (batch <= 64) {
    with_batch(std::integral_constant<int, 64>());
  } else {
    with_batch(std::integral_constant<int, 256>());
  }
}

}  // namespace

cudaError_t PreparePlainGemm() {
  cudaError_t error = cudaSuccess;
  for (const uint32_t batch : {16u, 64u, 256u}) {
    for (const bool f16 : {false, true}) {
      ForBatch(batch, f16, [&](auto instance) {
        using Traits = decltype(instance);
        if (error != cudaSuccess) return;
        error =
            cudaFuncSetAttribute(PlainGemm<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, Traits::kLaunchBytes);
      });
    }
  }
  return error;
}

cudaError_t LaunchPlainGemm(const PlainLaunch& launch, cudaStream_t stream) {
  if (launch.batch < 1 || launch.batch > kMaxBatch || launch.local_rows > launch.n) return cudaErrorInvalidValue;
  PlainParams params{};
  DecodeParams& d = params.decode;
  d.y = launch.y;
  d.epilogue = launch.epilogue;
  d.n = launch.n;
  d.local_rows = launch.local_rows;
  d.batch = launch.batch;
  d.k = static_cast<uint32_t>(launch.k);
  d.k_chunks = static_cast<uint32_t>(DivideUp(launch.k, kChunkColumns));
  const uint64_t local_tiles = DivideUp(launch.local_rows, kBoxRows);
  const uint64_t remote_tiles = DivideUp(launch.n - launch.local_rows, kBoxRows);
  d.remote_ctas = static_cast<uint32_t>(std::min<uint64_t>(remote_tiles, kPlainRemoteCtas));
  d.local_ctas = static_cast<uint32_t>(std::min<uint64_t>(local_tiles, kLocalCtasPerSm * launch.multiprocessors));
  d.control = launch.control;
  d.report = launch.report;
  d.workspace.link = launch.link;
  d.ns_per_clock = launch.ns_per_clock;
  params.x = static_cast<const uint16_t*>(launch.x);
  params.w_local = static_cast<const uint16_t*>(launch.w_local);
  params.w_remote = static_cast<const uint16_t*>(launch.w_remote);
  ForBatch(launch.batch, launch.f16, [&](auto instance) {
    using Traits = decltype(instance);
    PlainGemm<Traits><<<d.remote_ctas + d.local_ctas, kPlainThreads, Traits::kLaunchBytes, stream>>>(params);
  });
  return cudaGetLastError();
}

}  // namespace dak::kernels
