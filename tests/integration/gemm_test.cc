// dak_gemm over split weights, against an independent reference in double precision.
#include "tests/integration/harness/matrix.h"
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

struct Case {
  uint64_t n;
  uint64_t k;
  uint32_t batch;
  double ratio;
  bool f16;
};

class GemmTest : public IntegrationTest {
 protected:
  // Runs one case with tensors of the session for x, W and y; returns the worst error.
  double Run(dak::Session& session, const Case& c, uint32_t seed) {
    const dak_data_type type = c.f16 ? DAK_F16 : DAK_BF16;
    const std::vector<dak::TensorSpec> specs = {Matrix("w", c.n, c.k, c.ratio, type),
                                                Matrix("x", c.batch, c.k, 0, type), Matrix("y", c.batch, c.n, 0, type)};
    auto tensors = session.Allocate(specs);
    EXPECT_TRUE(tensors.ok()) << tensors.status().ToString();
    const auto w = RandomMatrix(c.n, c.k, seed, c.f16);
    const auto x = RandomMatrix(c.batch, c.k, seed + 1, c.f16);
    std::vector<uint16_t> y(c.batch * c.n, 0x7fff);  // NaN in both types: what isn't written shows
    EXPECT_TRUE((*tensors)[0].Upload(std::span(w)).ok());
    EXPECT_TRUE((*tensors)[1].Upload(std::span(x)).ok());
    EXPECT_TRUE((*tensors)[2].Upload(std::span(y)).ok());
    const uint64_t x_address = (*tensors)[1].GetParts()->front().device_address;
    const uint64_t y_address = (*tensors)[2].GetParts()->front().device_address;
    const dak::Status status = session.Gemm((*tensors)[0], x_address, y_address, c.batch);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_TRUE(session.Synchronize().ok());
    EXPECT_TRUE((*tensors)[2].Download(std::span(y)).ok());
    EXPECT_TRUE(session.Free(*tensors).ok());
    return WorstError(x, w, y, c.batch, c.n, c.k, c.f16);
  }
};

TEST_F(GemmTest, EqualsTheReferenceForManyShapesAndSplits) {
  dak::Session session = Open();
  uint32_t seed = 1;
  for (const bool f16 : {false, true}) {
    for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{1, 8}, {63, 64}, {64, 72}, {65, 128}, {300, 520}}) {
      for (const uint32_t batch : {1u, 3u, 17u}) {
        for (const double ratio : {0.0, 0.3, 1.0}) {
          const Case c{.n = n, .k = k, .batch = batch, .ratio = ratio, .f16 = f16};
          EXPECT_LT(Run(session, c, seed += 2), Tolerance(f16))
              << "n " << n << " k " << k << " batch " << batch << " ratio " << ratio << (f16 ? " f16" : " bf16");
        }
      }
    }
  }
  EXPECT_LT(Run(session, {.n = 130, .k = 64, .batch = 256, .ratio = 0.5, .f16 = false}, 7), Tolerance(false));
  EXPECT_LT(Run(session, {.n = 130, .k = 72, .batch = 300, .ratio = 0.5, .f16 = true}, 9), Tolerance(true));
}

TEST_F(GemmTest, RemoteBytesAreReportedAndSeenByTheDaemon) {
  dak::Session session = Open();
  const Case c{.n = 256, .k = 512, .batch = 2, .ratio = 0.5, .f16 = false};
  ASSERT_LT(Run(session, c, 1), Tolerance(false));
  const uint64_t expected = 128 * 512 * 2;
  EXPECT_EQ(session.GetInfo()->remote_bytes, expected);
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.Sessions().at(0).remote_bytes() == expected; }));
  EXPECT_GT(session.GetInfo()->window_bytes, 0u);
}

TEST_F(GemmTest, RunsOnAttachedWeights) {
  const auto w = RandomMatrix(128, 64, 5, false);
  const auto x = RandomMatrix(4, 64, 6, false);
  dak::Session publisher = Open("publisher");
  auto weights = publisher.Allocate(Matrix("w", 128, 64, 0.5), "model");
  ASSERT_TRUE(weights.ok());
  ASSERT_TRUE(weights->Upload(std::span(w)).ok());
  ASSERT_TRUE(publisher.Publish("model", "llama", "v1").ok());
  dak::Session reader = Open("reader");
  auto attached = reader.Attach("llama", "v1");
  ASSERT_TRUE(attached.ok()) << attached.status().ToString();
  alignas(64) uint16_t y[4 * 128] = {};
  alignas(64) uint16_t aligned_x[4 * 64];
  std::copy(x.begin(), x.end(), aligned_x);
  const dak::Status status =
      reader.Gemm(attached->front(), reinterpret_cast<uint64_t>(aligned_x), reinterpret_cast<uint64_t>(y), 4);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_LT(WorstError(x, w, {y, y + 4 * 128}, 4, 128, 64, false), Tolerance(false));
}

TEST_F(GemmTest, RefusesWhatNoKernelComputes) {
  dak::Session session = Open();
  auto odd = session.Allocate(Matrix("odd", 64, 12, 0));
  ASSERT_TRUE(odd.ok());
  alignas(64) static uint16_t x[1024];
  alignas(64) static uint16_t y[1024];
  const dak::Status status = session.Gemm(*odd, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), 1);
  EXPECT_EQ(status.code(), DAK_INVALID_ARGUMENT);
  EXPECT_EQ(status.field(), "k");
}

}  // namespace
}  // namespace dak::testing
