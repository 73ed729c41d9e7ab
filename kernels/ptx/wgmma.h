// Warpgroup matrix products, 64 x N x 16, both operands in shared memory, fp32 sums; cuda::ptx has none of these.
// A and B are K-major in 128-byte rows with the 128-byte swizzle, as TMA writes them.
// Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#ifndef DAK_KERNELS_PTX_WGMMA_H_
#define DAK_KERNELS_PTX_WGMMA_H_

#include <cstdint>

namespace dak::kernels::ptx {

__device__ inline void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most kPending of this warpgroup's groups are unfinished.
template <int kPending>
__device__ inline void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The descriptor of an operand at shared address `address` (a multiple of 1024, plus 32 bytes for each 16 columns):
// 128-byte swizzle in the top bits, 1024 bytes from one group of eight rows to the next.
__device__ inline uint64_t WgmmaDescriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kGroupStride = uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kGroupStride | (uint64_t{1} << 16) | ((address & 0x3FFFF) >> 4);
}

// Wgmma<kN, kF16>::Run<kKeep>(sums, a, b): sums = a * b^T, plus the old sums if kKeep. sums[4 j + i] of thread t
// is row 16 (t / 32) + (t % 32) / 4 + 8 (i / 2), column 8 j + 2 (t % 4) + i % 2.
template <int kN, bool kF16>
struct Wgmma;

// One accumulator, four and sixteen of them, as asm operands.
#define DAK_ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DAK_ACC16(i) DAK_ACC4(i), DAK_ACC4(i + 4), DAK_ACC4(i + 8), DAK_ACC4(i + 12)
#define DAK_ACC64(i) DAK_ACC16(i), DAK_ACC16(i + 16), DAK_ACC16(i + 32), DAK_ACC16(i + 48)

#define DAK_WGMMA(N, F16, TYPE, REGISTERS, A, B, KEEP, ...)                                                        \
  template <>                                                                                                      \
  struct Wgmma<N, F16> {                                                                                           \
    template <bool kKeep>                                                                                          \
    __device__ static void Run(float (&d)[N / 2], uint64_t a, uint64_t b) {                                        \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" REGISTERS "}, %" A ", %" B \
                   ", %" KEEP ", 1, 1, 0, 0;"                                                                      \
                   : __VA_ARGS__                                                                                   \
                   : "l"(a), "l"(b), "n"(kKeep ? 1 : 0));                                                          \
    }                                                                                                              \
  }

#define DAK_REGISTERS_8 "%0, %1, %2, %3"
#define DAK_REGISTERS_16 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DAK_REGISTERS_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define DAK_REGISTERS_64                                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DAK_REGISTERS_128                                                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "           \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, " \
  "%60, %61, %62, %63"
#define DAK_REGISTERS_256                                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "                         \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "               \
  "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "               \
  "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "               \
  "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, " \
  "%119, "                                                                                                             \
  "%120, %121, %122, %123, %124, %125, %126, %127"

DAK_WGMMA(8, false, "bf16", DAK_REGISTERS_8, "4", "5", "6", DAK_ACC4(0));
DAK_WGMMA(8, true, "f16", DAK_REGISTERS_8, "4", "5", "6", DAK_ACC4(0));
DAK_WGMMA(16, false, "bf16", DAK_REGISTERS_16, "8", "9", "10", DAK_ACC4(0), DAK_ACC4(4));
DAK_WGMMA(16, true, "f16", DAK_REGISTERS_16, "8", "9", "10", DAK_ACC4(0), DAK_ACC4(4));
DAK_WGMMA(32, false, "bf16", DAK_REGISTERS_32, "16", "17", "18", DAK_ACC16(0));
DAK_WGMMA(32, true, "f16", DAK_REGISTERS_32, "16", "17", "18", DAK_ACC16(0));
DAK_WGMMA(64, false, "bf16", DAK_REGISTERS_64, "32", "33", "34", DAK_ACC16(0), DAK_ACC16(16));
DAK_WGMMA(64, true, "f16", DAK_REGISTERS_64, "32", "33", "34", DAK_ACC16(0), DAK_ACC16(16));
DAK_WGMMA(128, false, "bf16", DAK_REGISTERS_128, "64", "65", "66", DAK_ACC64(0));
DAK_WGMMA(128, true, "f16", DAK_REGISTERS_128, "64", "65", "66", DAK_ACC64(0));
DAK_WGMMA(256, false, "bf16", DAK_REGISTERS_256, "128", "129", "130", DAK_ACC64(0), DAK_ACC64(64));
DAK_WGMMA(256, true, "f16", DAK_REGISTERS_256, "128", "129", "130", DAK_ACC64(0), DAK_ACC64(64));

#undef DAK_REGISTERS_8
#undef DAK_REGISTERS_16
#undef DAK_REGISTERS_32
#undef DAK_REGISTERS_64
#undef DAK_REGISTERS_128
#undef DAK_REGISTERS_256
#undef DAK_WGMMA
#undef DAK_ACC64
#undef DAK_ACC16
#undef DAK_ACC4

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_WGMMA_H_
