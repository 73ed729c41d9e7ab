// One dakd a test, and sessions of this process.
#ifndef DAK_TESTS_INTEGRATION_INTEGRATION_FIXTURE_H_
#define DAK_TESTS_INTEGRATION_INTEGRATION_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dak/dak.hpp"
#include "tests/integration/harness/daemon_process.h"

namespace dak::testing {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;

inline dak::TensorSpec Matrix(const std::string& name, uint64_t rows, uint64_t cols, double ratio,
                              dak_data_type type = DAK_BF16) {
  return {.name = name,
          .data_type = type,
          .rows = rows,
          .cols = cols,
          .offload_ratio = ratio,
          .remote_tier = DAK_TIER_HOST,
          .tile_rows = 0};
}

inline std::vector<uint8_t> Pattern(size_t count, uint32_t seed) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>((i * 2654435761u + seed) >> 7);
  return bytes;
}

inline std::vector<uint8_t> Contents(dak::Tensor tensor) {
  std::vector<uint8_t> bytes(tensor.GetInfo()->bytes);
  const dak::Status status = tensor.Download(std::span(bytes));
  EXPECT_TRUE(status.ok()) << status.ToString();
  return bytes;
}

inline dak::Result<dak::Session> OpenSession(const DaemonProcess& daemon, const std::string& name, uint32_t weight = 0,
                                             uint64_t hbm_quota_bytes = 0) {
  return dak::Session::Open({.runtime_dir = daemon.runtime_dir(),
                             .name = name,
                             .weight = weight,
                             .hbm_quota_bytes = hbm_quota_bytes,
                             .host_quota_bytes = 0,
                             .cxl_quota_bytes = 0,
                             .timeout = std::chrono::seconds(60)});
}

class IntegrationTest : public ::testing::Test {
 protected:
  explicit IntegrationTest(DaemonOptions options = {}) : daemon_(std::move(options)) {}
  dak::Session Open(const std::string& name = "test", uint32_t weight = 0, uint64_t hbm_quota_bytes = 0) {
    auto session = OpenSession(daemon_, name, weight, hbm_quota_bytes);
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    return *std::move(session);
  }
  void ExpectPoolsEmpty() {
    for (const auto& [tier, pool] : daemon_.Pools()) {
      EXPECT_EQ(pool.session_bytes(), 0u) << tier;
      EXPECT_EQ(pool.published_bytes(), 0u) << tier;
      EXPECT_EQ(pool.free_bytes(), pool.capacity_bytes()) << tier;
      EXPECT_EQ(pool.segment_count(), 0u) << tier;
    }
  }
  DaemonProcess daemon_;
};

}  // namespace dak::testing

#endif  // DAK_TESTS_INTEGRATION_INTEGRATION_FIXTURE_H_
