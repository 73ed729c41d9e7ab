#include "client/demo/model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace dak::demo {
namespace {

constexpr uint64_t kElementsPerDraw = 8;  // 7 bits of a draw each

double FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Small multiples of 1/64: few enough binary digits for bf16 to hold them exactly.
std::array<uint16_t, 128> MakeValues() {
  std::array<uint16_t, 128> values;
  for (int i = 0; i < 128; ++i) {
    const float value = static_cast<float>(std::max(i - 64, -63)) / 64;
    values[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  }
  return values;
}

uint64_t Mix(uint64_t value) {
  value ^= value >> 31;
  value *= 0x7fb5d329728ea185;
  value ^= value >> 27;
  value *= 0x81dadef4bc2dd44d;
  return value ^ (value >> 33);
}

}  // namespace

uint64_t Model::bytes() const {
  uint64_t sum = 0;
  for (const LinearLayer& layer : layers) sum += layer.bytes();
  return sum;
}

Model MakeModel(const std::string& device_kind, uint32_t layer_count, uint32_t batch) {
  const bool large = device_kind == "cuda";
  const uint64_t hidden = large ? 4096 : 256;
  const uint64_t qkv = large ? 6144 : 384;
  const uint64_t ffn = large ? 14336 : 896;
  Model model{.layers = {}, .batch = batch != 0 ? batch : large ? 8u : 4u};
  for (uint32_t i = 0; i < layer_count; ++i) {
    const std::string prefix = "layer" + std::to_string(i) + ".";
    model.layers.push_back({.name = prefix + "qkv", .n = qkv, .k = hidden});
    model.layers.push_back({.name = prefix + "o", .n = hidden, .k = hidden});
    model.layers.push_back({.name = prefix + "gate_up", .n = 2 * ffn, .k = hidden});
    model.layers.push_back({.name = prefix + "down", .n = hidden, .k = ffn});
  }
  return model;
}

void FillRow(uint64_t seed, uint64_t matrix, uint64_t row, std::span<uint16_t> elements) {
  static const std::array<uint16_t, 128> values = MakeValues();
  uint64_t state = Mix(Mix(Mix(seed) + matrix) + row) | 1;
  for (size_t i = 0; i < elements.size(); i += kElementsPerDraw) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const size_t end = std::min<size_t>(i + kElementsPerDraw, elements.size());
    for (size_t j = i; j < end; ++j) elements[j] = values[(state >> (7 * (j - i))) & 127];
  }
}

double WorstError(const LinearLayer& layer, uint64_t seed, uint64_t matrix, std::span<const uint64_t> rows,
                  std::span<const uint16_t> x, std::span<const uint16_t> y, uint32_t batch) {
  std::vector<uint16_t> w(layer.k);
  std::vector<double> inputs(x.size());
  std::transform(x.begin(), x.end(), inputs.begin(), FromBf16);
  double worst = 0;
  for (const uint64_t row : rows) {
    FillRow(seed, matrix, row, w);
    for (uint32_t b = 0; b < batch; ++b) {
      double sum = 0;
      for (uint64_t i = 0; i < layer.k; ++i) sum += inputs[b * layer.k + i] * FromBf16(w[i]);
      const double error = std::abs(FromBf16(y[b * layer.n + row]) - sum) / (std::abs(sum) + 1);
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
    }
  }
  return worst;
}

}  // namespace dak::demo
