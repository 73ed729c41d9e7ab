#include "kernels/gemm.h"
#include "allocator/base/error_detail.h"
#include <cstring>
#include <vector>
namespace dak::kernels {
absl::Status CheckGemm(const GemmShape& s) {
  if (s.batch < 1 || s.batch > 256) return InvalidField("batch", "is out of range", "1 to 256");
  if (s.k % 8) return InvalidField("k", "x", "a multiple of 8");
  return absl::OkStatus();
}
absl::StatusOr<std::unique_ptr<GemmRunner>> CreateCudaGemmRunner(int) { return absl::NotFoundError("no"); }
static float F(uint16_t b) { uint32_t u = uint32_t(b) << 16; float f; memcpy(&f, &u, 4); return f; }
static uint16_t B(float f) { uint32_t u; memcpy(&u, &f, 4); return (u + 0x7fff + ((u >> 16) & 1)) >> 16; }
absl::StatusOr<GemmReferenceStats> GemmReference(const GemmShape& s, const GemmOperands& o, const LinkView& l, const LinkModel&, bool) {
  for (uint32_t b = 0; b < s.batch; ++b) for (uint64_t n = 0; n < s.n; ++n) {
    auto* w = n < s.local_rows ? (const uint16_t*)o.w_local + n * s.k : (const uint16_t*)o.w_remote + (n - s.local_rows) * s.k;
    float acc = 0; for (uint64_t k = 0; k < s.k; ++k) acc += F(((const uint16_t*)o.x)[b * s.k + k]) * F(w[k]);
    ((uint16_t*)o.y)[b * s.n + n] = B(acc);
  }
  if (l.report) l.report->bytes += (s.n - s.local_rows) * s.k * 2;
  return GemmReferenceStats{};
}
}
