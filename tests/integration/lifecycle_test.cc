// Sessions, tensors and their books, in one client process.
#include <cmath>

#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class LifecycleTest : public IntegrationTest {};

TEST_F(LifecycleTest, TheSessionIsListedAsItWasOpened) {
  dak::Session session = Open("engine/1", 250, 64 * kMiB);
  const auto info = session.GetInfo();
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  EXPECT_STREQ(info->device_kind, "emulated");
  EXPECT_EQ(info->connected, 1);
  const auto sessions = daemon_.Sessions();
  ASSERT_THAT(sessions, SizeIs(1));
  EXPECT_EQ(sessions[0].session_id(), info->session_id);
  EXPECT_EQ(sessions[0].name(), "engine/1");
  EXPECT_EQ(sessions[0].weight(), 250u);
  EXPECT_EQ(sessions[0].pid(), getpid());
  session.Close();
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.Sessions().empty(); }));
}

TEST_F(LifecycleTest, NamesADefaultAfterTheProgram) {
  auto session = dak::Session::Open({.runtime_dir = daemon_.runtime_dir(),
                                     .name = "",
                                     .weight = 0,
                                     .hbm_quota_bytes = 0,
                                     .host_quota_bytes = 0,
                                     .cxl_quota_bytes = 0,
                                     .timeout = {}});
  ASSERT_TRUE(session.ok()) << session.status().ToString();
  EXPECT_EQ(daemon_.Sessions()[0].name(), "dak_integration_test");
}

TEST_F(LifecycleTest, BytesAreAccountedWhileHeldAndBackWhenFreed) {
  dak::Session session = Open();
  auto w = session.Allocate(Matrix("w", 4096, 1024, 0.25));
  ASSERT_TRUE(w.ok()) << w.status().ToString();
  const auto pools = daemon_.Pools();
  EXPECT_EQ(pools.at("hbm").session_bytes(), 6 * kMiB);
  EXPECT_EQ(pools.at("host").session_bytes(), 2 * kMiB);
  const auto tensors = daemon_.Tensors();
  ASSERT_THAT(tensors, SizeIs(1));
  EXPECT_EQ(tensors[0].name(), "w");
  EXPECT_EQ(tensors[0].parts_size(), 2);
  ASSERT_TRUE(session.Free(*w).ok());
  ExpectPoolsEmpty();
}

TEST_F(LifecycleTest, ClosingGivesEverythingBack) {
  dak::Session session = Open();
  const std::vector<dak::TensorSpec> specs = {Matrix("a", 1000, 512, 0.5), Matrix("b", 70, 24, 1)};
  ASSERT_TRUE(session.Allocate(specs, "g").ok());
  ASSERT_TRUE(session.Allocate(specs, "h").ok());
  session.Close();
  ExpectPoolsEmpty();
}

TEST_F(LifecycleTest, MemoryIsZeroEvenWhereItWasUsedBefore) {
  dak::Session session = Open();
  for (int round = 0; round < 3; ++round) {
    const std::vector<dak::TensorSpec> specs = {Matrix("keep" + std::to_string(round), 64, 64, 0.5),
                                                Matrix("w", 512, 256, 0.5)};
    auto tensors = session.Allocate(specs);
    ASSERT_TRUE(tensors.ok()) << tensors.status().ToString();
    EXPECT_THAT(Contents((*tensors)[1]), Each(0)) << round;
    const std::vector<uint8_t> dirt(512 * 256 * 2, 0xee);
    ASSERT_TRUE((*tensors)[1].Upload(std::span(dirt)).ok());
    ASSERT_TRUE(session.Free((*tensors)[1]).ok());
  }
}

TEST_F(LifecycleTest, CopiesAreRightAtEverySplit) {
  dak::Session session = Open();
  for (const double ratio : {0.0, 0.1, 0.5, 0.9, 1.0}) {
    auto w = session.Allocate(Matrix("w", 200, 40, ratio));
    ASSERT_TRUE(w.ok()) << w.status().ToString();
    const uint64_t all = 200 * 40 * 2;
    std::vector<uint8_t> expected = Pattern(all, 1);
    ASSERT_TRUE(w->Upload(std::span(expected)).ok());
    const uint64_t split = w->GetParts()->front().bytes;
    for (const auto& [offset, count] : {std::pair<uint64_t, uint64_t>{split == 0 ? 0 : split - 1, 1},
                                        {split > 50 ? split - 50 : 0, 77},
                                        {0, all},
                                        {all - 1, 1},
                                        {split, 0}}) {
      const uint64_t length = std::min(count, all - offset);
      const std::vector<uint8_t> patch = Pattern(length, static_cast<uint32_t>(offset + 99));
      ASSERT_TRUE(w->Upload(std::span(patch), offset).ok());
      std::copy(patch.begin(), patch.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
      EXPECT_EQ(Contents(*w), expected) << "ratio " << ratio << ", " << offset << "+" << length;
    }
    ASSERT_TRUE(session.Free(*w).ok());
  }
}

TEST_F(LifecycleTest, DescriptorsEqualFreshEncodings) {
  dak::Session session = Open();
  for (const dak_data_type type : {DAK_BF16, DAK_F16, DAK_F32, DAK_U8}) {
    auto w = session.Allocate(Matrix("w" + std::to_string(type), 500, 256, 0.3, type));
    ASSERT_TRUE(w.ok()) << w.status().ToString();
    const auto parts = w->GetParts();
    ASSERT_THAT(*parts, SizeIs(2));
    for (uint32_t i = 0; i < 2; ++i) {
      ASSERT_NE((*parts)[i].tensor_map, nullptr) << "type " << type;
      EXPECT_TRUE(w->VerifyMap(i).ok()) << w->VerifyMap(i).message();
    }
  }
  auto odd = session.Allocate(Matrix("odd", 5, 7, 0));
  ASSERT_TRUE(odd.ok());
  EXPECT_EQ(odd->GetParts()->front().tensor_map, nullptr);
}

TEST_F(LifecycleTest, RatiosBecomeWholeTilesAndNeverLessRemoteThanAsked) {
  dak::Session session = Open();
  auto w = session.Allocate(Matrix("w", 1000, 64, 0.1));
  ASSERT_TRUE(w.ok());
  const auto parts = w->GetParts();
  ASSERT_THAT(*parts, SizeIs(2));
  EXPECT_EQ((*parts)[0].rows + (*parts)[1].rows, 1000u);
  EXPECT_EQ((*parts)[1].first_row, (*parts)[0].rows);
  EXPECT_GE((*parts)[1].rows, 100u);
  EXPECT_LE((*parts)[1].rows, 100u + 64);
}

TEST_F(LifecycleTest, TheQuotaHoldsAndSaysByHowMuch) {
  dak::Session session = Open("small", 0, 4 * kMiB);
  ASSERT_TRUE(session.Allocate(Matrix("fits", 1024, 1024, 0)).ok());
  const dak::Status status = session.Allocate(Matrix("too much", 3 * 1024, 1024, 0)).status();
  EXPECT_EQ(status.code(), DAK_INVALID_ARGUMENT) << "a blank in a name: " << status.message();
  const dak::Status over = session.Allocate(Matrix("too-much", 3 * 1024, 1024, 0)).status();
  EXPECT_EQ(over.code(), DAK_RESOURCE_EXHAUSTED);
  EXPECT_EQ(over.reason(), "QUOTA_EXCEEDED");
  EXPECT_EQ(over.shortfall_bytes(), 4 * kMiB);
  EXPECT_EQ(daemon_.Pools().at("hbm").session_bytes(), 2 * kMiB) << "a refusal changes nothing";
}

TEST_F(LifecycleTest, ThePoolHoldsAndSaysByHowMuch) {
  dak::Session session = Open();
  const dak::Status status = session.Allocate(Matrix("w", 512 * 1024, 512, 0)).status();  // 512 MiB of 256
  EXPECT_EQ(status.code(), DAK_RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.reason(), "POOL_EXHAUSTED");
  EXPECT_EQ(status.shortfall_bytes(), 256 * kMiB);
  ExpectPoolsEmpty();
}

TEST_F(LifecycleTest, TheWholePoolCanBeUsedAgainAndAgain) {
  dak::Session session = Open();
  for (int round = 0; round < 3; ++round) {
    auto w = session.Allocate(Matrix("w", 256 * 1024, 512, 0));  // 256 MiB
    ASSERT_TRUE(w.ok()) << w.status().ToString();
    EXPECT_EQ(daemon_.Pools().at("hbm").free_bytes(), 0u);
    ASSERT_TRUE(session.Free(*w).ok());
  }
}

TEST_F(LifecycleTest, RefusalsNameTheField) {
  dak::Session session = Open();
  const auto refusal = [&](const dak::TensorSpec& spec) { return session.Allocate(spec).status(); };
  EXPECT_EQ(refusal(Matrix("w", 0, 64, 0)).field(), "tensors[0].rows");
  EXPECT_EQ(refusal(Matrix("w", 64, uint64_t{1} << 31, 0)).field(), "tensors[0].cols");
  EXPECT_EQ(refusal(Matrix("w", 64, 64, 1.5)).field(), "tensors[0].offload_ratio");
  EXPECT_EQ(refusal(Matrix("", 64, 64, 0)).field(), "tensors[0].name");
  EXPECT_EQ(refusal(Matrix("w", 64, 64, 0, static_cast<dak_data_type>(77))).field(), "tensors[0].data_type");
  dak::TensorSpec cxl = Matrix("w", 64, 64, 0.5);
  cxl.remote_tier = DAK_TIER_CXL;
  const dak::Status absent = refusal(cxl);
  EXPECT_EQ(absent.code(), DAK_FAILED_PRECONDITION);
  EXPECT_EQ(absent.reason(), "TIER_ABSENT");
  ASSERT_TRUE(session.Allocate(Matrix("w", 64, 64, 0)).ok());
  EXPECT_EQ(refusal(Matrix("w", 64, 64, 0)).code(), DAK_ALREADY_EXISTS);
  auto weightless = OpenSession(daemon_, "x", 100'000);
  EXPECT_EQ(weightless.status().field(), "weight");
}

TEST_F(LifecycleTest, AllOrNothingInABatch) {
  dak::Session session = Open();
  const std::vector<dak::TensorSpec> specs = {Matrix("a", 64, 64, 0), Matrix("b", 64, 64, 2)};
  const dak::Status status = session.Allocate(specs).status();
  EXPECT_EQ(status.field(), "tensors[1].offload_ratio");
  ExpectPoolsEmpty();
  EXPECT_EQ(session.Find("a").status().code(), DAK_NOT_FOUND);
}

TEST_F(LifecycleTest, APlanIsPutInForce) {
  dak::Session session = Open();
  const std::vector<dak::Operation> operations = {
      {.name = "qkv", .bytes = 100 * kMiB, .flops = 1e6, .min_ratio = 0, .max_ratio = 1},
      {.name = "mlp", .bytes = 300 * kMiB, .flops = 3e6, .min_ratio = 0, .max_ratio = 1}};
  const auto plan = session.PlanPass(operations, 300 * kMiB);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  ASSERT_THAT(plan->ratios, SizeIs(2));
  const double remote = plan->ratios[0] * 100 + plan->ratios[1] * 300;
  EXPECT_NEAR(remote, 100, 0.01) << "what doesn't fit is remote";
  EXPECT_GT(plan->predicted_s, 0);
  EXPECT_TRUE(daemon_.WaitUntil([&] { return session.GetInfo()->plan_version == 1; }));
  v1::GetPlanRequest request;
  request.set_session_id(session.GetInfo()->session_id);
  EXPECT_EQ(Ask(daemon_.plans(), &v1::PlanService::Stub::GetPlan, request).version(), 1u);
  // In whole tiles where the rows are known; a batch and a cache are taken as well.
  std::vector<dak::Operation> tiled = operations;
  tiled[0].rows = 51'200;  // of 2 KiB
  tiled[0].tile_rows = 128;
  tiled[0].batch = 8;
  tiled[1].stored_bytes = 300 * kMiB;
  tiled[1].is_kv_cache = true;
  const auto whole = session.PlanPass(tiled, 300 * kMiB);
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  const double tiles = whole->ratios[0] * 400;
  EXPECT_NEAR(tiles, std::round(tiles), 1e-9);
  EXPECT_GT(tiles, 0);
  tiled[0].rows = 51'201;
  EXPECT_EQ(session.PlanPass(tiled, 300 * kMiB).status().field(), "operations[0].rows");
  const dak::Status impossible =
      session.PlanPass({{{.name = "op", .bytes = 100, .flops = 0, .min_ratio = 0, .max_ratio = 0.5}}}, 10).status();
  EXPECT_EQ(impossible.code(), DAK_RESOURCE_EXHAUSTED);
}

TEST_F(LifecycleTest, ALeaseIsKeptWithoutTheApplicationsHelp) {
  DaemonProcess leased({.flags = {"--lease-ms=300"}, .config = ""});
  auto session = OpenSession(leased, "leased");
  ASSERT_TRUE(session.ok()) << session.status().ToString();
  const uint64_t begin = leased.Sessions().at(0).age_ns();
  EXPECT_TRUE(leased.WaitUntil([&] {
    const auto sessions = leased.Sessions();
    return sessions.empty() || sessions[0].age_ns() > begin + 1'000'000'000;
  }));
  EXPECT_THAT(leased.Sessions(), SizeIs(1)) << "the lease ran out though the client lives";
  EXPECT_EQ(session->GetInfo()->connected, 1);
}

TEST_F(LifecycleTest, ManySessionsComeAndGo) {
  { dak::Session warm_up = Open(); }
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.Sessions().empty(); }));
  const size_t descriptors = daemon_.OpenDescriptors();
  for (int i = 0; i < 30; ++i) {
    dak::Session session = Open("s" + std::to_string(i));
    ASSERT_TRUE(session.Allocate(Matrix("w", 128, 64, 0.5)).ok());
  }
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.OpenDescriptors() <= descriptors; }))
      << daemon_.OpenDescriptors() << " > " << descriptors;
  ExpectPoolsEmpty();
}

}  // namespace
}  // namespace dak::testing
