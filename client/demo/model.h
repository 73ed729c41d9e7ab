// The demo's model: the linear layers of a decode step, with weights that are a function of their position.
//
// Weights and inputs are made row by row from a seed, so that a result can be checked against the unsplit weights
// without keeping a second copy of them, and without knowing how they were split.
// Shapes: weights [n, k], inputs [batch, k], outputs [batch, n], bf16, row-major.
// Thread safety: values and pure functions.
#ifndef DAK_CLIENT_DEMO_MODEL_H_
#define DAK_CLIENT_DEMO_MODEL_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace dak::demo {

struct LinearLayer {
  std::string name;  // "layer0.qkv"
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t bytes() const { return n * k * sizeof(uint16_t); }
};

struct Model {
  std::vector<LinearLayer> layers;
  uint32_t batch = 0;
  uint64_t bytes() const;
};

// QKV, O, gate/up and down projections of `layer_count` layers: on "cuda" of the shape of an 8B Llama, else small
// enough for a processor core. batch 0: 8 on cuda, else 4.
Model MakeModel(const std::string& device_kind, uint32_t layer_count, uint32_t batch);

// Fills row `row` of matrix `matrix`: multiples of 1/64 in (-1, 1), exact in bf16.
void FillRow(uint64_t seed, uint64_t matrix, uint64_t row, std::span<uint16_t> elements);

// Largest |y - reference| / (|reference| + 1) over the given rows of W, the reference in double precision from weights
// made afresh; x is [batch, k], y [batch, n].
double WorstError(const LinearLayer& layer, uint64_t seed, uint64_t matrix, std::span<const uint64_t> rows,
                  std::span<const uint16_t> x, std::span<const uint16_t> y, uint32_t batch);

// What one rounding to bf16 and sums in fp32 may differ.
inline constexpr double kTolerance = 0.005;

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_MODEL_H_
