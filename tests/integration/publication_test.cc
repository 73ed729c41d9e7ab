// Publishing and attaching across processes.
#include "tests/integration/harness/matrix.h"
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::Optional;
using ::testing::SizeIs;

class PublicationTest : public IntegrationTest {
 protected:
  // What a publisher named `name` puts into its 512 x 256 matrix.
  static std::vector<uint8_t> BytesOf(const std::string& name) {
    const auto weights = RandomMatrix(512, 256, static_cast<uint32_t>(std::hash<std::string>()(name)), false);
    const auto* const bytes = reinterpret_cast<const uint8_t*>(weights.data());
    return {bytes, bytes + weights.size() * 2};
  }
  std::unique_ptr<ChildProcess> Publisher(const std::string& name) {
    return std::make_unique<ChildProcess>(
        std::vector<std::string>{DAK_TEST_CLIENT_PATH, daemon_.runtime_dir(), name, "100", "publish"});
  }
};

TEST_F(PublicationTest, OutlivesItsPublishersDeath) {
  auto publisher = Publisher("loader");
  ASSERT_THAT(publisher->ReadLine(), Optional(std::string("published")));
  dak::Session early = Open("early");
  auto before = early.Attach("model", "v1");
  ASSERT_TRUE(before.ok()) << before.status().ToString();
  EXPECT_EQ(Contents(before->front()), BytesOf("loader"));
  publisher->Kill();
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.Sessions().size() == 1; }));
  EXPECT_EQ(Contents(before->front()), BytesOf("loader"));
  dak::Session late = Open("late");
  auto after = late.Attach("model", "v1");
  ASSERT_TRUE(after.ok()) << after.status().ToString();
  EXPECT_EQ(Contents(after->front()), BytesOf("loader"));
  EXPECT_EQ(daemon_.SessionBytes(), 0u);
  EXPECT_GT(daemon_.PublishedBytes(), 0u);
  ASSERT_TRUE(late.Withdraw("model").ok());
  EXPECT_GT(daemon_.PublishedBytes(), 0u) << "still attached";
  EXPECT_EQ(Open("third").Attach("model").status().code(), DAK_NOT_FOUND);
  ASSERT_TRUE(late.Detach("model").ok());
  ASSERT_TRUE(early.Detach("model").ok());
  ExpectPoolsEmpty();
}

TEST_F(PublicationTest, AnotherFingerprintIsRefused) {
  auto publisher = Publisher("loader");
  ASSERT_THAT(publisher->ReadLine(), Optional(std::string("published")));
  dak::Session session = Open();
  const dak::Status status = session.Attach("model", "v2").status();
  EXPECT_EQ(status.code(), DAK_FAILED_PRECONDITION);
  EXPECT_EQ(status.reason(), "FINGERPRINT_MISMATCH");
  EXPECT_TRUE(session.Attach("model").ok()) << "an empty fingerprint matches any";
}

TEST_F(PublicationTest, ANameThatIsTakenLeavesTheGroupAsItWas) {
  auto publisher = Publisher("loader");
  ASSERT_THAT(publisher->ReadLine(), Optional(std::string("published")));
  dak::Session session = Open();
  auto w = session.Allocate(Matrix("w", 64, 64, 0.5), "mine");
  ASSERT_TRUE(w.ok());
  EXPECT_EQ(session.Publish("mine", "model", "v1").code(), DAK_ALREADY_EXISTS);
  const std::vector<uint8_t> bytes = Pattern(64 * 64 * 2, 4);
  EXPECT_TRUE(w->Upload(std::span(bytes)).ok());
  EXPECT_EQ(Contents(*w), bytes);
  EXPECT_TRUE(session.Free(*w).ok());
}

TEST_F(PublicationTest, BytesMoveFromTheSessionToThePublished) {
  dak::Session session = Open("quota", 0, 4 * kMiB);
  ASSERT_TRUE(session.Allocate(Matrix("w", 2048, 1024, 0), "g").ok());
  EXPECT_EQ(session.Allocate(Matrix("v", 64, 64, 0), "h").status().reason(), "QUOTA_EXCEEDED");
  ASSERT_TRUE(session.Publish("g", "p", "f").ok());
  EXPECT_EQ(daemon_.Pools().at("hbm").published_bytes(), 4 * kMiB);
  EXPECT_EQ(daemon_.Pools().at("hbm").session_bytes(), 0u);
  EXPECT_TRUE(session.Allocate(Matrix("v", 64, 64, 0), "h").ok()) << "they left the quota";
}

TEST_F(PublicationTest, ThePublisherDetachesAndUsesTheGroupsNameAgain) {
  dak::Session session = Open();
  ASSERT_TRUE(session.Allocate(Matrix("w", 64, 64, 0.5), "g").ok());
  ASSERT_TRUE(session.Publish("g", "p", "f").ok());
  EXPECT_EQ(session.Allocate(Matrix("v", 64, 64, 0.5), "g").status().code(), DAK_FAILED_PRECONDITION);
  ASSERT_TRUE(session.Detach("p").ok());
  EXPECT_TRUE(session.Allocate(Matrix("w", 64, 64, 0.5), "g").ok());
  auto again = session.Attach("p");
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_THAT(*again, SizeIs(1));
}

TEST_F(PublicationTest, ManySegmentsAndTensorsAreAttachedAtOnce) {
  dak::Session session = Open();
  for (int i = 0; i < 70; ++i) {  // more segments than one request on handles.sock may redeem
    ASSERT_TRUE(session.Allocate(Matrix("w" + std::to_string(i), 1024, 1024, 0), "g").ok());
  }
  ASSERT_TRUE(session.Publish("g", "p", "f").ok());
  dak::Session reader = Open("reader");
  auto tensors = reader.Attach("p");
  ASSERT_TRUE(tensors.ok()) << tensors.status().ToString();
  EXPECT_THAT(*tensors, SizeIs(70));
}

}  // namespace
}  // namespace dak::testing
