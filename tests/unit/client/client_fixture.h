// A fake daemon and helpers around the C++ wrapper, for tests of libdak.so.
#ifndef DAK_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H_
#define DAK_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dak/dak.hpp"
#include "tests/unit/client/fake_daemon.h"

namespace dak::testing {

class ClientTest : public ::testing::Test {
 protected:
  dak::Result<dak::Session> TryOpen(std::chrono::nanoseconds timeout = std::chrono::seconds(20)) {
    return dak::Session::Open({.runtime_dir = daemon_.runtime_dir(),
                               .name = "test",
                               .weight = 0,
                               .hbm_quota_bytes = 0,
                               .host_quota_bytes = 0,
                               .cxl_quota_bytes = 0,
                               .timeout = timeout});
  }
  dak::Session Open() {
    auto session = TryOpen();
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    return *std::move(session);
  }
  // `rows` x 64 bf16 (128 bytes a row), half of them remote.
  static dak::TensorSpec Spec(const std::string& name, uint64_t rows = 128, double ratio = 0.5) {
    return {.name = name,
            .data_type = DAK_BF16,
            .rows = rows,
            .cols = 64,
            .offload_ratio = ratio,
            .remote_tier = DAK_TIER_HOST,
            .tile_rows = 0};
  }
  static std::vector<uint8_t> Bytes(size_t count, uint8_t seed) {
    std::vector<uint8_t> bytes(count);
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(seed + i * 31);
    return bytes;
  }
  static FakeDaemon::Refusal Answer(grpc::StatusCode code, const std::string& text = "on order") {
    return [code, text] { return grpc::Status(code, text); };
  }

  FakeDaemon daemon_;
};

}  // namespace dak::testing

#endif  // DAK_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H_
