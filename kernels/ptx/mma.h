// A warp's matrix products, 16 x 8 x 16 with fp32 sums, and the loads that feed them; cuda::ptx has none of these.
// Source: PTX ISA, "Matrix multiply-accumulate operation using mma instruction" and "ldmatrix".
#ifndef DAK_KERNELS_PTX_MMA_H_
#define DAK_KERNELS_PTX_MMA_H_

#include <cstdint>

namespace dak::kernels::ptx {

// Four 8 x 8 matrices of 16-bit elements; lane l gives the shared address of row l % 8 of matrix l / 8. In result i
// lane l has columns 2 (l % 4) and the next of row l / 4 of matrix i; transposed, those rows of that column.
__device__ inline void LoadMatrices(uint32_t (&matrices)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(address)
               : "memory");
}

__device__ inline void LoadMatricesTransposed(uint32_t (&matrices)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(address)
               : "memory");
}

// sums += a b. Lane l has rows l / 4 and l / 4 + 8 of sums: columns 2 (l % 4) and the next in sums[0] and [1] of the
// first row, [2] and [3] of the second. a: those rows, two columns a word, the first row before the second, columns
// below 8 before the others. b: two rows a word of column l / 4, rows below 8 before the others.
template <bool kF16>
__device__ inline void Mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (kF16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
        " {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
        " {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// 2^x, and 0 for minus infinity.
__device__ inline float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_MMA_H_
