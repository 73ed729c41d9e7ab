// The daemon over a real GPU: what clients map is what was promised, and what they held is really back when they die.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.runtime_dir = directory_.path();
    options_.device.kind = DeviceOptions::Kind::kCuda;
    auto device = OpenDevice(options_.device);
    ASSERT_TRUE(device.ok()) << device.status();
    const auto host = (*device)->GetTier(Tier::kHost);
    ASSERT_TRUE(host.ok()) << host.status();
    options_.capacity_bytes[TierIndex(Tier::kHost)] = std::min(uint64_t{8} << 30, host->total_bytes / 2);
    auto daemon = Daemon::Start(options_, *std::move(device));
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
    auto client = OpenDevice(options_.device);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  // Redeems the tickets of `grants` and maps what comes, in order.
  template <typename Grants>
  std::vector<std::unique_ptr<Mapping>> Map(TestSession& session, const Grants& grants, Access access) {
    std::vector<std::string> tickets;
    for (const v1::SegmentGrant& grant : grants) tickets.push_back(grant.ticket());
    ReceivedReply fetched = session.connection.Fetch(tickets);
    EXPECT_EQ(fetched.reply.code(), 0) << fetched.reply.message();
    std::vector<std::unique_ptr<Mapping>> mappings;
    for (size_t i = 0; i < fetched.fds.size(); ++i) {
      const v1::Handle& handle = fetched.reply.handles(static_cast<int>(i));
      auto mapping = client_->Map({.fd = std::move(fetched.fds[i]),
                                   .kind = static_cast<HandleKind>(handle.kind()),
                                   .tier = static_cast<Tier>(handle.tier()),
                                   .bytes = handle.bytes()},
                                  access);
      EXPECT_TRUE(mapping.ok()) << mapping.status();
      mappings.push_back(*std::move(mapping));
    }
    return mappings;
  }

  TempDir directory_;
  DaemonOptions options_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<Device> client_;
};

std::vector<std::byte> Pattern(uint64_t bytes, int seed) {
  std::vector<std::byte> pattern(bytes);
  for (uint64_t i = 0; i < bytes; ++i)
    pattern[i] = static_cast<std::byte>((i * 131 + static_cast<uint64_t>(seed)) >> 3);
  return pattern;
}

TEST_F(GpuTest, SplitTensorIsZeroHoldsBytesAndItsDescriptorsRebase) {
  TestSession session(directory_.path());
  EXPECT_EQ(session.opened.device().kind(), "cuda");
  EXPECT_FALSE(session.opened.device().uuid().empty());
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 4096, 4096, 0.25), TestSession::Spec("v", 100, 72, 0.5)},
                               &response),
              IsOk());
  ASSERT_EQ(response.segments_size(), 2);
  const auto mappings = Map(session, response.segments(), Access::kReadWrite);
  ASSERT_EQ(mappings.size(), 2u);
  int seed = 0;
  for (const v1::Tensor& tensor : response.tensors()) {
    for (const v1::TensorPart& part : tensor.parts()) {
      Mapping& mapping = *mappings[part.segment_id() == response.segments(0).segment_id() ? 0 : 1];
      EXPECT_EQ(mapping.tier(), static_cast<Tier>(part.tier()));
      std::vector<std::byte> read(part.bytes(), std::byte{1});
      ASSERT_TRUE(client_->Download(mapping, part.offset_bytes(), absl::MakeSpan(read)).ok());
      EXPECT_EQ(read, std::vector<std::byte>(part.bytes()));
      const std::vector<std::byte> written = Pattern(part.bytes(), ++seed);
      ASSERT_TRUE(client_->Upload(mapping, part.offset_bytes(), written).ok());
      ASSERT_TRUE(client_->Download(mapping, part.offset_bytes(), absl::MakeSpan(read)).ok());
      EXPECT_EQ(read, written);
      ASSERT_EQ(part.tensor_map().size(), sizeof(TensorMap));
      TensorMap map;
      std::memcpy(map.bytes.data(), part.tensor_map().data(), map.bytes.size());
      const uint64_t address = mapping.address() + part.offset_bytes();
      const auto rebased = client_->RebaseTensorMap(map, address);
      const auto fresh = client_->EncodeTensorMap({.element = ElementType::kBf16,
                                                   .rows = part.rows(),
                                                   .cols = tensor.cols(),
                                                   .box_rows = part.box_rows(),
                                                   .box_cols = part.box_cols()},
                                                  address);
      ASSERT_TRUE(rebased.ok() && fresh.ok()) << rebased.status() << fresh.status();
      EXPECT_EQ(*rebased, *fresh);
    }
  }
}

// Nine tenths of the GPU, three times over: unless the driver has it all back, the second time doesn't fit.
TEST_F(GpuTest, MemoryOfTheDeadIsReallyBack) {
  const uint64_t capacity = daemon_->ledger().Pools()[0].capacity_bytes;
  const uint64_t rows = capacity / 10 * 9 / (uint64_t{1} << 20);
  const uint64_t host_bytes = daemon_->ledger().Pools()[1].capacity_bytes / 2;
  for (int round = 0; round < 3; ++round) {
    TestSession session(directory_.path());
    v1::AllocateTensorsResponse response;
    v1::TensorSpec spec = TestSession::Spec("w", rows, uint64_t{1} << 20);
    spec.set_data_type(v1::DATA_TYPE_U8);
    v1::TensorSpec remote = TestSession::Spec("r", host_bytes >> 20, uint64_t{1} << 20, 1);
    remote.set_data_type(v1::DATA_TYPE_U8);
    auto begin = std::chrono::steady_clock::now();
    ASSERT_THAT(session.Allocate("g", {spec, remote}, &response), IsOk()) << "round " << round;
    std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    std::printf("allocated %.1f GiB of HBM and %.1f GiB of host memory in %.1f ms\n", static_cast<double>(rows) / 1024,
                static_cast<double>(host_bytes) / (1 << 30), took.count());
    begin = std::chrono::steady_clock::now();
    session.connection.Close();
    ASSERT_TRUE(WaitUntil([&] { return daemon_->ledger().Pools()[0].session_bytes == 0; }));
    took = std::chrono::steady_clock::now() - begin;
    std::printf("back %.1f ms after the connection ended\n", took.count());
  }
}

TEST_F(GpuTest, PublicationOutlivesItsPublisher) {
  std::vector<std::byte> written;
  {
    TestSession publisher(directory_.path(), "publisher");
    v1::AllocateTensorsResponse response;
    ASSERT_THAT(publisher.Allocate("g", {TestSession::Spec("w", 1024, 1024, 0.5)}, &response), IsOk());
    const auto mappings = Map(publisher, response.segments(), Access::kReadWrite);
    ASSERT_EQ(mappings.size(), 2u);
    written = Pattern(1 << 20, 7);
    for (const auto& mapping : mappings) ASSERT_TRUE(client_->Upload(*mapping, 0, written).ok());
    ASSERT_THAT(publisher.Publish("g", "model", "f"), IsOk());
  }
  ASSERT_TRUE(WaitUntil([&] { return daemon_->ledger().Pools()[0].session_bytes == 0; }));
  TestSession reader(directory_.path(), "reader");
  v1::AttachPublicationResponse attached;
  ASSERT_THAT(reader.Attach("model", "f", &attached), IsOk());
  const auto mappings = Map(reader, attached.segments(), Access::kReadOnly);
  ASSERT_EQ(mappings.size(), 2u);
  for (const auto& mapping : mappings) {
    std::vector<std::byte> read(written.size());
    ASSERT_TRUE(client_->Download(*mapping, 0, absl::MakeSpan(read)).ok());
    EXPECT_EQ(read, written);
    EXPECT_FALSE(client_->Upload(*mapping, 0, written).ok());
  }
}

TEST_F(GpuTest, AllocatingAndFreeingTakesThis) {
  TestSession session(directory_.path());
  std::vector<double> allocate_ms, free_ms;
  for (int i = 0; i < 200; ++i) {
    v1::AllocateTensorsResponse response;
    auto begin = std::chrono::steady_clock::now();
    ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 1024, 1024, 0.25)}, &response), IsOk());
    allocate_ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    begin = std::chrono::steady_clock::now();
    ASSERT_THAT(session.Free({response.tensors(0).tensor_id()}), IsOk());
    free_ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(allocate_ms.begin(), allocate_ms.end());
  std::sort(free_ms.begin(), free_ms.end());
  std::printf("two new segments of 2 MiB: allocate p50 %.2f ms, p99 %.2f ms; free p50 %.2f ms, p99 %.2f ms\n",
              allocate_ms[100], allocate_ms[198], free_ms[100], free_ms[198]);
}

}  // namespace
}  // namespace dak::daemon
