// PlanService: bounds, plans in force, the profile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <functional>
#include <limits>

#include "dak/v1/control_page.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;
using Stub = v1::PlanService::Stub;

class PlanTest : public testing::Test {
 protected:
  // Two memory-bound operations of 1 GB.
  static v1::PlanPassRequest Request() {
    v1::PlanPassRequest request;
    for (const char* name : {"attention", "mlp"}) {
      v1::Operation* operation = request.add_operations();
      operation->set_name(name);
      operation->set_bytes(1'000'000'000);
    }
    request.set_hbm_budget_bytes(1'500'000'000);
    return request;
  }
  // Pools that hold it; emulated memory costs nothing before it is made.
  TestDaemon daemon_{[](DaemonOptions* options) {
    options->device.emulated.tier_bytes = {uint64_t{4} << 30, uint64_t{8} << 30, 0};
  }};
  Stubs stubs_{daemon_.options().runtime_dir};
};

TEST_F(PlanTest, WithoutATokenItIsOnlyComputed) {
  v1::Plan plan;
  ASSERT_THAT(Call(*stubs_.plan, &Stub::PlanPass, Request(), &plan), IsOk());
  EXPECT_EQ(plan.version(), 0u);
  EXPECT_EQ(plan.session_id(), 0u);
  ASSERT_EQ(plan.operations_size(), 2);
  EXPECT_EQ(plan.operations(0).name(), "attention");
  EXPECT_NEAR(plan.operations(0).offload_ratio() + plan.operations(1).offload_ratio(), 0.5, 1e-6);
  EXPECT_GT(plan.predicted_s(), 0);
  EXPECT_LE(plan.predicted_s(), plan.uniform_s() * (1 + 1e-9));
  EXPECT_NEAR(static_cast<double>(plan.remote_bytes()), 5e8, 2);
}

TEST_F(PlanTest, WithATokenItIsInForceWithTheNextVersion) {
  TestSession session(daemon_.options().runtime_dir);
  v1::GetPlanRequest get;
  v1::Plan plan;
  get.set_session_id(session.id());
  EXPECT_THAT(Call(*stubs_.plan, &Stub::GetPlan, get, &plan),
              FailsWith(StatusCode::NOT_FOUND, "NO_PLAN", "session_id"));
  v1::PlanPassRequest request = Request();
  request.set_session_token(session.token());
  for (uint64_t version = 1; version <= 3; ++version) {
    request.mutable_operations(0)->set_name("attention" + std::to_string(version));  // other tensors: a plan anew
    ASSERT_THAT(Call(*stubs_.plan, &Stub::PlanPass, request, &plan), IsOk());
    EXPECT_EQ(plan.version(), version);
    EXPECT_EQ(plan.session_id(), session.id());
    v1::Plan held;
    ASSERT_THAT(Call(*stubs_.plan, &Stub::GetPlan, get, &held), IsOk());
    EXPECT_EQ(held.SerializeAsString(), plan.SerializeAsString());
  }
  v1::KeepSessionRequest keep;
  v1::KeepSessionResponse kept;
  keep.set_session_token(session.token());
  ASSERT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::KeepSession, keep, &kept), IsOk());
  EXPECT_EQ(kept.plan_version(), 3u);
  // The session's kernels see it, too.
  ReceivedReply pages = session.connection.Fetch({session.opened.control_ticket()});
  ASSERT_EQ(pages.fds.size(), 2u);
  void* memory = ::mmap(nullptr, v1::kControlPageBytes, PROT_READ, MAP_SHARED, pages.fds[0].get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EQ(static_cast<v1::ControlPage*>(memory)->links[0].plan_version, 3u);
  ::munmap(memory, v1::kControlPageBytes);
}

TEST_F(PlanTest, EveryBadFieldIsNamed) {
  using Spoil = std::function<void(v1::PlanPassRequest&)>;
  const std::pair<const char*, Spoil> cases[] = {
      {"operations", [](auto& r) { r.clear_operations(); }},
      {"operations[1].name", [](auto& r) { r.mutable_operations(1)->set_name(""); }},
      {"operations[0].bytes", [](auto& r) { r.mutable_operations(0)->set_bytes((uint64_t{1} << 50) + 1); }},
      {"operations[0].flops", [](auto& r) { r.mutable_operations(0)->set_flops(-1); }},
      {"operations[0].flops", [](auto& r) { r.mutable_operations(0)->set_flops(std::nan("")); }},
      {"operations[0].flops",
       [](auto& r) { r.mutable_operations(0)->set_flops(std::numeric_limits<double>::infinity()); }},
      {"operations[0].min_ratio", [](auto& r) { r.mutable_operations(0)->set_min_ratio(-0.5); }},
      {"operations[0].min_ratio", [](auto& r) { r.mutable_operations(0)->set_min_ratio(std::nan("")); }},
      {"operations[1].max_ratio", [](auto& r) { r.mutable_operations(1)->set_max_ratio(1.5); }},
      {"operations[1].max_ratio",
       [](auto& r) { r.mutable_operations(1)->set_min_ratio(0.5), r.mutable_operations(1)->set_max_ratio(0.4); }},
      {"operations[0].stored_bytes",
       [](auto& r) { r.mutable_operations(0)->set_stored_bytes((uint64_t{1} << 50) + 1); }},
      {"operations[0].kind", [](auto& r) { r.mutable_operations(0)->set_kind(static_cast<v1::Operation::Kind>(7)); }},
      {"operations[1].rows", [](auto& r) { r.mutable_operations(1)->set_rows(999); }},
      {"operations[1].tile_rows",
       [](auto& r) { r.mutable_operations(1)->set_rows(1000), r.mutable_operations(1)->set_tile_rows(4097); }},
  };
  for (const auto& [field, spoil] : cases) {
    v1::PlanPassRequest request = Request();
    v1::Plan plan;
    spoil(request);
    EXPECT_THAT(Call(*stubs_.plan, &Stub::PlanPass, request, &plan),
                FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", field));
  }
}

TEST_F(PlanTest, MostOperationsFitOneMoreIsRefused) {
  v1::PlanPassRequest request;
  for (int i = 0; i < 100'000; ++i) {
    v1::Operation* operation = request.add_operations();
    operation->set_name("layer." + std::to_string(i) + std::string(100, 'x'));
    operation->set_bytes(1000);
  }
  request.set_hbm_budget_bytes(90'000'000);
  v1::Plan plan;
  EXPECT_THAT(Call(*stubs_.plan, &Stub::PlanPass, request, &plan), IsOk());
  EXPECT_EQ(plan.operations_size(), 100'000);
  *request.add_operations() = request.operations(0);
  EXPECT_THAT(Call(*stubs_.plan, &Stub::PlanPass, request, &plan),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "operations"));
}

TEST_F(PlanTest, WhatDoesNotFitSaysByHowMuch) {
  v1::PlanPassRequest request = Request();
  for (v1::Operation& operation : *request.mutable_operations()) operation.set_max_ratio(0.1);
  request.set_hbm_budget_bytes(1'000'000'000);
  v1::Plan plan;
  const grpc::Status status = Call(*stubs_.plan, &Stub::PlanPass, request, &plan);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NEAR(static_cast<double>(DetailIn(status).shortfall_bytes()), 8e8, 2);
}

TEST_F(PlanTest, UnknownSessionsAreRefused) {
  v1::PlanPassRequest request = Request();
  request.set_session_token(std::string(16, 'x'));
  v1::Plan plan;
  EXPECT_THAT(Call(*stubs_.plan, &Stub::PlanPass, request, &plan),
              FailsWith(StatusCode::UNAUTHENTICATED, "UNKNOWN_SESSION", "session_token"));
  v1::GetPlanRequest get;
  get.set_session_id(999);
  EXPECT_THAT(Call(*stubs_.plan, &Stub::GetPlan, get, &plan),
              FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_SESSION", "session_id"));
}

TEST_F(PlanTest, ProfileOfTheEmulatedDeviceIsItsModel) {
  v1::Profile profile;
  ASSERT_THAT(Call(*stubs_.plan, &Stub::GetProfile, v1::GetProfileRequest(), &profile), IsOk());
  const LinkModel& link = daemon_.options().device.emulated.link;
  EXPECT_EQ(profile.link_bytes_per_s(), static_cast<double>(link.bandwidth_bytes_per_s));
  EXPECT_EQ(profile.round_trip_ns(), link.round_trip_ns);
  EXPECT_EQ(profile.cliff_bytes(), link.cliff_bytes);
  EXPECT_EQ(profile.source(), "default");
  EXPECT_EQ(profile.measured_unix_s(), 0u);
  EXPECT_EQ(profile.age_s(), 0u);
  ASSERT_EQ(profile.links_size(), 1);
  EXPECT_EQ(profile.links(0).bytes_per_s(), static_cast<double>(link.bandwidth_bytes_per_s));
  EXPECT_THAT(profile.links(0).tiers(), testing::ElementsAre(v1::TIER_HOST));  // there is no cxl pool
  EXPECT_TRUE(profile.links(0).rates().empty());
}

// A cxl tier on the host's link: slower than that, and within its window.
TEST_F(PlanTest, ASlowerTierIsShownOnTheLinkThatItShares) {
  TestDaemon daemon([](DaemonOptions* options) {
    options->device.emulated.tier_bytes[TierIndex(Tier::kCxl)] = 64 * kMiB;
    options->profile.mutable_cxl()->set_bytes_per_s(5e9);
    options->profile.mutable_cxl()->set_round_trip_ns(2'300);
  });
  Stubs stubs(daemon.options().runtime_dir);
  v1::Profile profile;
  ASSERT_THAT(Call(*stubs.plan, &Stub::GetProfile, v1::GetProfileRequest(), &profile), IsOk());
  ASSERT_EQ(profile.links_size(), 1);
  EXPECT_THAT(profile.links(0).tiers(), testing::ElementsAre(v1::TIER_HOST, v1::TIER_CXL));
  ASSERT_EQ(profile.links(0).rates_size(), 1);
  EXPECT_EQ(profile.links(0).rates(0).tier(), v1::TIER_CXL);
  EXPECT_EQ(profile.links(0).rates(0).bytes_per_s(), 5e9);
  EXPECT_EQ(profile.links(0).rates(0).round_trip_ns(), 2'300u);
  EXPECT_EQ(profile.links(0).round_trip_ns(), 1'800u);
}

}  // namespace
}  // namespace dak::daemon
