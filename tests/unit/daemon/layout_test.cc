#include "daemon/session/layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "allocator/base/error_detail.h"
#include "allocator/base/remote_rows.h"
#include "allocator/device/emulated_device.h"
#include "daemon/session/limits.h"

namespace dak::daemon {
namespace {

TensorSpec GoodSpec() { return {.name = "w", .rows = 128, .cols = 256}; }

TEST(LayoutTest, RemoteRowsAreRoundedUpToWholeTiles) {
  EXPECT_EQ(RemoteRows(1000, 0, 64), 0u);
  EXPECT_EQ(RemoteRows(1000, 1e-9, 64), 64u);
  EXPECT_EQ(RemoteRows(1000, 0.064, 64), 64u);
  EXPECT_EQ(RemoteRows(1000, 0.0641, 64), 128u);
  EXPECT_EQ(RemoteRows(1000, 0.99, 64), 1000u);
  EXPECT_EQ(RemoteRows(1000, 1, 64), 1000u);
  EXPECT_EQ(RemoteRows(10, 0.5, 64), 10u);
  EXPECT_EQ(RemoteRows(10, 0.7, 1), 7u);  // 0.7 * 10 is one ulp above 7
  EXPECT_EQ(RemoteRows(kMaxDimension, 0.5, 1), (kMaxDimension + 1) / 2);
}

TEST(LayoutTest, NeverLessRemoteThanAskedAndNeverATileTooMany) {
  for (uint64_t rows = 1; rows < 400; rows += 7) {
    for (int percent = 1; percent <= 100; ++percent) {
      for (const uint32_t tile : {1u, 16u, 64u}) {
        const double ratio = percent / 100.0;
        const uint64_t remote = RemoteRows(rows, ratio, tile);
        EXPECT_GE(static_cast<double>(remote), ratio * static_cast<double>(rows) - 1e-9);
        EXPECT_LE(remote, rows);
        EXPECT_LT(static_cast<double>(remote), ratio * static_cast<double>(rows) + tile);
        EXPECT_TRUE(remote % tile == 0 || remote == rows);
      }
    }
  }
}

TEST(LayoutTest, PartsCoverAllRowsInOrder) {
  TensorSpec spec = GoodSpec();
  spec.offload_ratio = 0.5;
  spec.remote_tier = Tier::kCxl;
  const Tensor split = LayOut(spec);
  ASSERT_EQ(split.parts.size(), 2u);
  EXPECT_EQ(split.parts[0].tier, Tier::kHbm);
  EXPECT_EQ(split.parts[1].tier, Tier::kCxl);
  EXPECT_EQ(split.parts[1].first_row, split.parts[0].rows);
  EXPECT_EQ(split.parts[0].bytes + split.parts[1].bytes, 128u * 256 * 2);
  spec.offload_ratio = 1;
  EXPECT_EQ(LayOut(spec).parts.size(), 1u);
  EXPECT_EQ(LayOut(spec).parts[0].tier, Tier::kCxl);
  spec.offload_ratio = 0;
  EXPECT_EQ(LayOut(spec).parts[0].tier, Tier::kHbm);
}

TEST(LayoutTest, EveryBadFieldIsNamed) {
  struct Case {
    const char* field;
    std::function<void(TensorSpec&)> spoil;
  };
  const Case cases[] = {
      {"t.name", [](TensorSpec& s) { s.name = ""; }},
      {"t.name", [](TensorSpec& s) { s.name = std::string(129, 'a'); }},
      {"t.name", [](TensorSpec& s) { s.name = "a b"; }},
      {"t.name", [](TensorSpec& s) { s.name = std::string("a\0b", 3); }},
      {"t.rows", [](TensorSpec& s) { s.rows = 0; }},
      {"t.rows", [](TensorSpec& s) { s.rows = kMaxDimension + 1; }},
      {"t.cols", [](TensorSpec& s) { s.cols = 0; }},
      {"t.cols", [](TensorSpec& s) { s.cols = std::numeric_limits<uint64_t>::max(); }},
      {"t", [](TensorSpec& s) { s.rows = s.cols = kMaxDimension; }},
      {"t.offload_ratio", [](TensorSpec& s) { s.offload_ratio = -0.1; }},
      {"t.offload_ratio", [](TensorSpec& s) { s.offload_ratio = 1.1; }},
      {"t.offload_ratio", [](TensorSpec& s) { s.offload_ratio = std::nan(""); }},
      {"t.remote_tier", [](TensorSpec& s) { s.offload_ratio = 0.5, s.remote_tier = Tier::kHbm; }},
      {"t.tile_rows", [](TensorSpec& s) { s.tile_rows = kMaxTileRows + 1; }},
      {"t.box_rows", [](TensorSpec& s) { s.box_rows = kMaxBoxRows + 1; }},
      {"t.box_cols", [](TensorSpec& s) { s.box_cols = 32; }},
  };
  EXPECT_TRUE(ValidateTensorSpec("t", GoodSpec()).ok());
  for (const Case& one : cases) {
    TensorSpec spec = GoodSpec();
    one.spoil(spec);
    const absl::Status status = ValidateTensorSpec("t", spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.field;
    EXPECT_EQ(DetailOf(status).field, one.field) << status;
    EXPECT_FALSE(DetailOf(status).limit.empty()) << status;
  }
}

TEST(LayoutTest, FingerprintsArePrintableAndBounded) {
  EXPECT_TRUE(ValidateFingerprint("f", "sha256: 00ff").ok());
  for (const std::string& bad : {std::string(), std::string(129, 'a'), std::string("a\n"), std::string("\xff")}) {
    EXPECT_EQ(DetailOf(ValidateFingerprint("f", bad)).field, "f");
  }
}

TEST(LayoutTest, PartsThatTmaCannotAddressHaveNoDescriptor) {
  EmulatedDevice device({});
  TensorSpec spec = GoodSpec();
  Tensor addressable = LayOut(spec);
  spec.cols = 7;  // 14 bytes a row
  Tensor odd = LayOut(spec);
  auto with = EncodePart(device, addressable, addressable.parts[0]);
  auto without = EncodePart(device, odd, odd.parts[0]);
  ASSERT_TRUE(with.ok() && without.ok());
  EXPECT_NE(*with, nullptr);
  EXPECT_EQ(*without, nullptr);
}

}  // namespace
}  // namespace dak::daemon
