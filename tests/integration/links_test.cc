// Links of unlike profiles: two in one dakd, and one in each of two that run side by side, as for two GPUs.
#include "tests/integration/harness/matrix.h"
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::ElementsAre;

// Products of 100,000 and of 30,000 bytes. Half the cliff, which windows never pass, is 2.5 of them on each.
constexpr uint64_t kBytesPerS[] = {1'000'000'000, 200'000'000};
constexpr uint64_t kRoundTripNs[] = {100'000, 150'000};
constexpr char kTwoLinks[] = R"(
  pools { tier: "cxl" capacity: "256MiB" }
  emulated {
    bandwidth_bytes_per_s: 1000000000
    round_trip_ns: 100000
    cliff_bytes: 500000
    cxl_link { bandwidth_bytes_per_s: 200000000 round_trip_ns: 150000 cliff_bytes: 150000 }
  })";

double Product(int link) {
  return static_cast<double>(kBytesPerS[link]) * static_cast<double>(kRoundTripNs[link]) * 1e-9;
}

// A matrix in a session, and a way to read it.
struct Reader {
  Reader(dak::Session& opened, const std::string& name, dak_tier tier) : session(opened) {
    dak::TensorSpec spec = Matrix(name, kRows, kCols, 1);
    spec.remote_tier = tier;
    auto allocated = session.Allocate(spec, name);
    EXPECT_TRUE(allocated.ok()) << allocated.status().ToString();
    w = *allocated;
    weights = RandomMatrix(kRows, kCols, 1, false);
    EXPECT_TRUE(w.Upload(std::span(weights)).ok());
  }
  void Read() {
    alignas(64) static uint16_t x[kCols];
    alignas(64) static uint16_t y[kRows];
    const auto input = RandomMatrix(1, kCols, 2, false);
    std::copy(input.begin(), input.end(), x);
    const dak::Status status = session.Gemm(w, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), 1);
    EXPECT_TRUE(status.ok()) << status.ToString();
    const std::vector<uint16_t> result(std::begin(y), std::end(y));
    EXPECT_LT(WorstError(input, weights, result, 1, kRows, kCols, false), Tolerance(false));
  }

  static constexpr uint64_t kRows = 512;
  static constexpr uint64_t kCols = 512;
  dak::Session& session;
  dak::Tensor w;
  std::vector<uint16_t> weights;
};

class LinksTest : public IntegrationTest {
 protected:
  LinksTest() : IntegrationTest({.config = kTwoLinks}) {}
  static v1::GetCongestionResponse Congestion(DaemonProcess& daemon) {
    return Ask(daemon.node(), &v1::NodeService::Stub::GetCongestion, v1::GetCongestionRequest());
  }
};

void ExpectHeldAt(const v1::LinkState& link, double product) {
  const auto target = static_cast<double>(link.target_bytes());
  EXPECT_GE(target, product) << link.link();
  EXPECT_LE(target, 2.5 * product) << link.link();
  double windows = 0;
  for (const v1::SessionWindow& session : link.sessions()) windows += static_cast<double>(session.window_bytes());
  EXPECT_GT(windows, 0) << link.link();
  EXPECT_LE(windows, 2.5 * product) << link.link();
}

TEST_F(LinksTest, EachIsControlledToItsOwnProduct) {
  dak::Session session = Open("reader");
  Reader on_host(session, "host", DAK_TIER_HOST), on_cxl(session, "cxl", DAK_TIER_CXL);
  v1::GetCongestionResponse congestion = Congestion(daemon_);
  ASSERT_EQ(congestion.links_size(), 2);
  EXPECT_THAT(congestion.links(0).tiers(), ElementsAre(v1::TIER_HOST));
  EXPECT_THAT(congestion.links(1).tiers(), ElementsAre(v1::TIER_CXL));
  for (int link = 0; link < 2; ++link) {
    EXPECT_EQ(congestion.links(link).link(), static_cast<uint32_t>(link));
    EXPECT_EQ(congestion.links(link).bandwidth_bytes_per_s(), kBytesPerS[link]);
    EXPECT_EQ(congestion.links(link).base_round_trip_ns(), kRoundTripNs[link]);
    EXPECT_NEAR(static_cast<double>(congestion.links(link).target_bytes()), 2 * Product(link),
                1);  // nothing is read yet
  }
  // What is read from cxl is on its link alone.
  on_cxl.Read();
  ASSERT_TRUE(daemon_.WaitUntil([&] { return Congestion(daemon_).links(1).sessions(0).inflight_peak_bytes() > 0; }));
  EXPECT_EQ(Congestion(daemon_).links(0).sessions(0).inflight_peak_bytes(), 0u);
  for (int pass = 0; pass < 20; ++pass) {
    on_host.Read();
    on_cxl.Read();
  }
  ASSERT_TRUE(daemon_.WaitUntil([&] { return Congestion(daemon_).links(0).sessions(0).inflight_peak_bytes() > 0; }));
  congestion = Congestion(daemon_);
  for (int link = 0; link < 2; ++link) {
    ExpectHeldAt(congestion.links(link), Product(link));
    const v1::SessionWindow& window = congestion.links(link).sessions(0);
    EXPECT_FALSE(window.violating()) << link;
    EXPECT_LE(static_cast<double>(window.inflight_peak_bytes()), 2.5 * Product(link)) << link;
  }
}

TEST_F(LinksTest, TheProfileAndPlansHaveBoth) {
  const auto profile = Ask(daemon_.plans(), &v1::PlanService::Stub::GetProfile, v1::GetProfileRequest());
  ASSERT_EQ(profile.links_size(), 2);
  EXPECT_EQ(profile.links(0).bytes_per_s(), 1e9);
  EXPECT_EQ(profile.links(1).bytes_per_s(), 0.2e9);
  EXPECT_EQ(profile.links(1).round_trip_ns(), kRoundTripNs[1]);
  EXPECT_EQ(profile.links(1).knee_bytes(), 30'000u);
  EXPECT_EQ(profile.links(1).cliff_bytes(), 150'000u);
  EXPECT_THAT(profile.links(1).tiers(), ElementsAre(v1::TIER_CXL));
  // All of it remote: both links read at once, at 1.2 GB/s together.
  v1::PlanPassRequest request;
  v1::Operation* operation = request.add_operations();
  operation->set_name("w");
  operation->set_bytes(120'000'000);
  const auto plan = Ask(daemon_.plans(), &v1::PlanService::Stub::PlanPass, request);
  EXPECT_NEAR(plan.predicted_s(), 0.1, 1e-9);
}

// Several GPUs are several daemons, each in a directory of its own: neither knows or touches the other's link.
TEST_F(LinksTest, TwoDaemonsRationALinkEach) {
  DaemonProcess other(
      {.config = "emulated { bandwidth_bytes_per_s: 200000000 round_trip_ns: 150000 cliff_bytes: 150000 }"});
  dak::Session here = Open("here");
  auto there = OpenSession(other, "there");
  ASSERT_TRUE(there.ok()) << there.status().ToString();
  Reader on_this(here, "w", DAK_TIER_HOST), on_other(*there, "w", DAK_TIER_HOST);
  for (int pass = 0; pass < 20; ++pass) {
    on_this.Read();
    on_other.Read();
  }
  const v1::GetCongestionResponse first = Congestion(daemon_), second = Congestion(other);
  ASSERT_EQ(second.links_size(), 1);
  ExpectHeldAt(first.links(0), Product(0));
  ExpectHeldAt(second.links(0), Product(1));
  ASSERT_EQ(first.links(0).sessions_size(), 1);
  EXPECT_EQ(first.links(0).sessions(0).name(), "here");
  EXPECT_EQ(second.links(0).sessions(0).name(), "there");
  other.Kill();
  on_this.Read();
}

}  // namespace
}  // namespace dak::testing
