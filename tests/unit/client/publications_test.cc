// Publishing, attaching, detaching, and their failures.
#include <cstdio>
#include <fstream>

#include "tests/unit/client/client_fixture.h"

namespace dak::testing {
namespace {

using ::testing::SizeIs;

class PublicationsTest : public ClientTest {
 protected:
  void SetUp() override { session_ = Open(); }
  // "r--s" for memory that is mapped read-only and shared, as /proc/self/maps has it.
  static std::string ProtectionOf(const void* pointer) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      uintptr_t begin = 0;
      uintptr_t end = 0;
      char protection[5] = "";
      if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, protection) != 3) continue;
      const auto address = reinterpret_cast<uintptr_t>(pointer);
      if (begin <= address && address < end) return protection;
    }
    return "unmapped";
  }
  dak::Session session_;
};

TEST_F(PublicationsTest, PublishingSealsTheMappings) {
  dak::Tensor w = *session_.Allocate(Spec("w"), "g");
  const std::vector<uint8_t> bytes = Bytes(128 * 128, 9);
  ASSERT_TRUE(w.Upload(std::span(bytes)).ok());
  ASSERT_TRUE(session_.Publish("g", "p", "f").ok());
  EXPECT_EQ(w.GetInfo()->read_only, 1);
  EXPECT_EQ(w.Upload(std::span(bytes)).reason(), "READ_ONLY");
  EXPECT_EQ(session_.Free(w).reason(), "READ_ONLY");
  std::vector<uint8_t> read(bytes.size());
  ASSERT_TRUE(w.Download(std::span(read)).ok());
  EXPECT_EQ(read, bytes);
  alignas(64) static uint16_t x[64];
  const uint64_t inside = w.GetParts()->back().device_address;
  dak::Tensor other = *session_.Allocate(Spec("other"));
  EXPECT_EQ(session_.Gemm(other, reinterpret_cast<uint64_t>(x), inside, 1).reason(), "READ_ONLY");
  for (const dak_tensor_part& part : *w.GetParts()) EXPECT_EQ(ProtectionOf(part.host_pointer), "r--s");
}

TEST_F(PublicationsTest, APublishThatIsRefusedLeavesTheGroupWritable) {
  dak::Tensor w = *session_.Allocate(Spec("w"), "g");
  const std::vector<uint8_t> bytes = Bytes(128 * 128, 9);
  EXPECT_EQ(session_.Publish("nothing here", "p", "f").field(), "group");
  EXPECT_EQ(daemon_.calls("PublishGroup"), 0);
  daemon_.Set(
      [](FakeDaemon::Faults* faults) { faults->before["PublishGroup"] = Answer(grpc::StatusCode::ALREADY_EXISTS); });
  EXPECT_EQ(session_.Publish("g", "p", "f").code(), DAK_ALREADY_EXISTS);
  EXPECT_EQ(w.GetInfo()->read_only, 0);
  EXPECT_TRUE(w.Upload(std::span(bytes)).ok());
  static_cast<uint8_t*>(w.GetParts()->front().host_pointer)[0] = 1;
}

TEST_F(PublicationsTest, APublishWhoseAnswerIsLostIsSettledByTheNextCall) {
  dak::Tensor w = *session_.Allocate(Spec("w"), "g");
  daemon_.Set(
      [](FakeDaemon::Faults* faults) { faults->after["PublishGroup"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED); });
  EXPECT_EQ(session_.Publish("g", "p", "f").code(), DAK_DEADLINE_EXCEEDED);
  ASSERT_TRUE(session_.Allocate(Spec("other")).ok());
  EXPECT_EQ(w.GetInfo()->read_only, 1) << "it had been published";
  // And one that never reached the daemon.
  dak::Tensor v = *session_.Allocate(Spec("v"), "h");
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->after.clear();
    faults->before["PublishGroup"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  EXPECT_EQ(session_.Publish("h", "q", "f").code(), DAK_DEADLINE_EXCEEDED);
  ASSERT_TRUE(session_.Allocate(Spec("another")).ok());
  EXPECT_EQ(v.GetInfo()->read_only, 0);
  const std::vector<uint8_t> bytes(16);
  EXPECT_TRUE(v.Upload(std::span(bytes)).ok());
}

TEST_F(PublicationsTest, AttachingMapsTheSameBytesReadOnly) {
  dak::Tensor w = *session_.Allocate(Spec("w"), "g");
  const std::vector<uint8_t> bytes = Bytes(128 * 128, 9);
  ASSERT_TRUE(w.Upload(std::span(bytes)).ok());
  ASSERT_TRUE(session_.Publish("g", "p", "f").ok());
  dak::Session reader = Open();
  auto tensors = reader.Attach("p", "f");
  ASSERT_TRUE(tensors.ok()) << tensors.status().ToString();
  ASSERT_THAT(*tensors, SizeIs(1));
  dak::Tensor attached = tensors->front();
  EXPECT_EQ(reader.Find("w", "p")->get(), attached.get());
  EXPECT_STREQ(attached.GetInfo()->group, "p");
  EXPECT_EQ(attached.GetInfo()->read_only, 1);
  std::vector<uint8_t> read(bytes.size());
  ASSERT_TRUE(attached.Download(std::span(read)).ok());
  EXPECT_EQ(read, bytes);
  EXPECT_EQ(attached.Upload(std::span(bytes)).reason(), "READ_ONLY");
  EXPECT_EQ(reader.Free(attached).reason(), "READ_ONLY");
  EXPECT_TRUE(attached.VerifyMap(1).ok());
  for (const dak_tensor_part& part : *attached.GetParts()) EXPECT_EQ(ProtectionOf(part.host_pointer), "r--s");
  EXPECT_EQ(reader.Attach("p").status().code(), DAK_ALREADY_EXISTS);
  EXPECT_EQ(reader.Allocate(Spec("x"), "p").status().code(), DAK_ALREADY_EXISTS);
  ASSERT_TRUE(reader.Detach("p").ok());
  EXPECT_EQ(reader.Find("w", "p").status().code(), DAK_NOT_FOUND);
  EXPECT_EQ(reader.Detach("p").code(), DAK_NOT_FOUND);
}

TEST_F(PublicationsTest, AnAttachThatCannotBeMappedIsUndone) {
  ASSERT_TRUE(session_.Allocate(Spec("w"), "g").ok());
  ASSERT_TRUE(session_.Publish("g", "p", "f").ok());
  ASSERT_TRUE(session_.Detach("p").ok());
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->bad_segment_in = 1; });
  EXPECT_FALSE(session_.Attach("p").ok());
  EXPECT_EQ(daemon_.attached_count(), 0u);
  EXPECT_TRUE(session_.Attach("p").ok());
}

TEST_F(PublicationsTest, AnAttachWhoseAnswerIsLostIsUndoneByTheNextCall) {
  ASSERT_TRUE(session_.Allocate(Spec("w"), "g").ok());
  ASSERT_TRUE(session_.Publish("g", "p", "f").ok());
  ASSERT_TRUE(session_.Detach("p").ok());
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->after["AttachPublication"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  EXPECT_EQ(session_.Attach("p").status().code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(daemon_.attached_count(), 1u);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after.clear(); });
  EXPECT_TRUE(session_.Allocate(Spec("w"), "h").ok());
  EXPECT_EQ(daemon_.attached_count(), 0u);
}

TEST_F(PublicationsTest, ADetachThatFailsCanBeRepeated) {
  ASSERT_TRUE(session_.Allocate(Spec("w"), "g").ok());
  ASSERT_TRUE(session_.Publish("g", "p", "f").ok());
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->after["DetachPublication"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  EXPECT_EQ(session_.Detach("p").code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(session_.Find("w", "g").status().code(), DAK_NOT_FOUND);
  EXPECT_EQ(session_.Attach("p").status().code(), DAK_ALREADY_EXISTS);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after.clear(); });
  EXPECT_TRUE(session_.Detach("p").ok());
  EXPECT_EQ(session_.Detach("p").code(), DAK_NOT_FOUND);
}

TEST_F(PublicationsTest, AGroupOfTheSameNameIsInTheWay) {
  ASSERT_TRUE(session_.Allocate(Spec("w"), "g").ok());
  ASSERT_TRUE(session_.Publish("g", "p", "f").ok());
  dak::Session reader = Open();
  ASSERT_TRUE(reader.Allocate(Spec("w"), "p").ok());
  EXPECT_EQ(reader.Attach("p").status().reason(), "GROUP_EXISTS");
}

}  // namespace
}  // namespace dak::testing
