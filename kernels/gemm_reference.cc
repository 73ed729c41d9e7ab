#include <algorithm>
#include <vector>

#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "kernels/element.h"
#include "kernels/gemm.h"
#include "kernels/gemm_operands.h"
#include "kernels/gemm_plan.h"
#include "kernels/remote_reader.h"

namespace dak::kernels {
namespace {

// Sums of one tile of up to kBoxRows rows: [rows, batch], in fp32 as the kernel's.
class Tile {
 public:
  Tile(const GemmShape& shape, const std::vector<float>& x) : shape_(shape), x_(x), sums_(kBoxRows * shape.batch) {}

  void Clear() { std::fill(sums_.begin(), sums_.end(), 0.0f); }

  // Adds columns [column, column + columns) of `rows` rows of W that start at `w`.
  void Accumulate(const uint16_t* w, uint64_t rows, uint64_t column, uint64_t columns) {
    for (uint64_t row = 0; row < rows; ++row) {
      const uint16_t* elements = w + row * shape_.k + column;
      for (uint64_t i = 0; i < columns; ++i) row_[i] = ElementToFloat(shape_.element, elements[i]);
      for (uint32_t batch = 0; batch < shape_.batch; ++batch) {
        const float* x = x_.data() + batch * shape_.k + column;
        float sum = 0;
        for (uint64_t i = 0; i < columns; ++i) sum += row_[i] * x[i];
        sums_[row * shape_.batch + batch] += sum;
      }
    }
  }

  // `first_row` counts W's rows.
  void Store(const GemmOperands& operands, uint64_t first_row, uint64_t rows) const {
    const GemmEpilogue& epilogue = operands.epilogue;
    const auto* bias = reinterpret_cast<const uint16_t*>(epilogue.bias);
    const auto* residual = reinterpret_cast<const uint16_t*>(epilogue.residual);
    auto* y = reinterpret_cast<uint16_t*>(operands.y);
    const bool swiglu = epilogue.activation == GemmActivation::kSwiGlu;
    const uint64_t columns = OutputColumns(shape_.n, epilogue.activation);
    const auto sum_of = [&](uint64_t row, uint32_t batch) {
      const float sum = sums_[row * shape_.batch + batch];
      return bias == nullptr ? sum : sum + ElementToFloat(shape_.element, bias[first_row + row]);
    };
    for (uint64_t row = 0; row < rows; ++row) {
      if (swiglu && row / kSwiGluRows % 2 == 1) continue;  // the up projection's
      const uint64_t w_row = first_row + row;
      const uint64_t column = swiglu ? w_row / (2 * kSwiGluRows) * kSwiGluRows + w_row % kSwiGluRows : w_row;
      for (uint32_t batch = 0; batch < shape_.batch; ++batch) {
        float value = sum_of(row, batch);
        if (swiglu) value = value / (1 + std::exp(-value)) * sum_of(row + kSwiGluRows, batch);
        const uint64_t at = batch * columns + column;
        if (residual != nullptr) value += ElementToFloat(shape_.element, residual[at]);
        y[at] = FloatToElement(shape_.element, value);
      }
    }
  }

 private:
  const GemmShape& shape_;
  const std::vector<float>& x_;
  std::vector<float> sums_;
  float row_[kChunkColumns];
};

}  // namespace

absl::StatusOr<GemmReferenceStats> GemmReference(const GemmShape& shape, const GemmOperands& operands,
                                                 const LinkView& link, const LinkModel& model, bool real_time) {
  DAK_RETURN_IF_ERROR(CheckGemm(shape));
  DAK_RETURN_IF_ERROR(CheckOperands(shape, operands, /*need_maps=*/false));
  if (shape.local_rows < shape.n && model.bandwidth_bytes_per_s == 0) {
    return InvalidField("model.bandwidth_bytes_per_s", "0 never ends", "above 0 where rows are remote");
  }
  const ModelClock clock(real_time);
  const auto* x_elements = reinterpret_cast<const uint16_t*>(operands.x);
  std::vector<float> x(shape.batch * shape.k);
  for (size_t i = 0; i < x.size(); ++i) x[i] = ElementToFloat(shape.element, x_elements[i]);
  Tile tile(shape, x);

  const uint64_t row_bytes = shape.k * ElementBytes(shape.element);
  RemoteReader reader(link, model, kBoxBytes, (shape.n - shape.local_rows) * row_bytes);
  const auto run_part = [&](const uint16_t* w, uint64_t part_begin, uint64_t part_end, bool remote) {
    for (uint64_t first = part_begin; first < part_end; first += kBoxRows) {
      const uint64_t rows = std::min<uint64_t>(kBoxRows, part_end - first);
      tile.Clear();
      for (uint64_t column = 0; column < shape.k; column += kChunkColumns) {
        const uint64_t columns = std::min<uint64_t>(kChunkColumns, shape.k - column);
        if (remote) reader.Read(rows * columns * ElementBytes(shape.element));
        tile.Accumulate(w + (first - part_begin) * shape.k, rows, column, columns);
      }
      tile.Store(operands, first, rows);
      if (remote) clock.SleepTo(reader.seconds());
    }
  };
  // Remote rows first, as the kernel starts both sides at once and the remote one is seldom the shorter.
  run_part(reinterpret_cast<const uint16_t*>(operands.w_remote), shape.local_rows, shape.n, true);
  run_part(reinterpret_cast<const uint16_t*>(operands.w_local), 0, shape.local_rows, false);
  const GemmReferenceStats stats = reader.Finish(shape.local_rows * row_bytes);
  clock.SleepTo(stats.modelled_seconds);
  return stats;
}

}  // namespace dak::kernels
