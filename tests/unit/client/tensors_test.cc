// Allocating, copying and freeing, and all that can go wrong between the daemon's answer and ours.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/unit/client/client_fixture.h"

namespace dak::testing {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class TensorsTest : public ClientTest {
 protected:
  void SetUp() override { session_ = Open(); }
  static size_t OpenDescriptors() {
    const std::filesystem::directory_iterator fds("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(fds), end(fds)));
  }
  // Those of memory files. Of others gRPC opens and closes some when it gets to it.
  size_t OpenMemoryFiles() {
    daemon_.Set([](FakeDaemon::Faults*) {});  // under this lock it closes its own copies of what it has sent
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      if (std::filesystem::read_symlink(entry.path(), gone).string().rfind("/memfd:", 0) == 0) ++count;
    }
    return count;
  }
  // Memory mappings of segments in this process.
  static size_t SegmentMappings() {
    std::ifstream maps("/proc/self/maps");
    size_t count = 0;
    for (std::string line; std::getline(maps, line);) {
      if (line.find("/memfd:") != std::string::npos) ++count;
    }
    return count;
  }
  dak::Session session_;
};

TEST_F(TensorsTest, PartsCoverTheRowsAndDescriptorsAreRebased) {
  dak::Tensor w = *session_.Allocate(Spec("w", 128, 0.5));
  const auto info = w.GetInfo();
  ASSERT_TRUE(info.ok());
  EXPECT_STREQ(info->name, "w");
  EXPECT_STREQ(info->group, "default");
  EXPECT_EQ(info->bytes, 128u * 128);
  EXPECT_EQ(info->part_count, 2u);
  EXPECT_EQ(info->read_only, 0);
  const auto parts = w.GetParts();
  ASSERT_TRUE(parts.ok());
  EXPECT_EQ((*parts)[0].tier, DAK_TIER_HBM);
  EXPECT_EQ((*parts)[1].tier, DAK_TIER_HOST);
  EXPECT_EQ((*parts)[1].first_row, 64u);
  for (uint32_t i = 0; i < 2; ++i) {
    ASSERT_NE((*parts)[i].tensor_map, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*parts)[i].tensor_map) % 64, 0u);
    EXPECT_TRUE(w.VerifyMap(i).ok()) << w.VerifyMap(i).message();
  }
  EXPECT_EQ(w.VerifyMap(2).field(), "index");
}

TEST_F(TensorsTest, VerifyMapFindsADescriptorOfAnotherShape) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->edit_allocation = [](v1::AllocateTensorsResponse* response) {
      response->mutable_tensors(0)->mutable_parts(0)->set_box_rows(32);
    };
  });
  dak::Tensor w = *session_.Allocate(Spec("w"));
  EXPECT_EQ(w.VerifyMap(0).code(), DAK_DATA_LOSS);
  EXPECT_TRUE(w.VerifyMap(1).ok());
}

TEST_F(TensorsTest, APartWithoutADescriptorSaysSo) {
  dak::Tensor odd = *session_.Allocate({.name = "odd",
                                        .data_type = DAK_BF16,
                                        .rows = 3,
                                        .cols = 3,
                                        .offload_ratio = 0,
                                        .remote_tier = DAK_TIER_HOST,
                                        .tile_rows = 0});
  EXPECT_EQ(odd.GetParts()->front().tensor_map, nullptr);
  EXPECT_EQ(odd.VerifyMap(0).code(), DAK_FAILED_PRECONDITION);
}

TEST_F(TensorsTest, CopiesAcrossTheSplit) {
  dak::Tensor w = *session_.Allocate(Spec("w"));
  const uint64_t all = 128 * 128;
  const std::vector<uint8_t> whole = Bytes(all, 1);
  ASSERT_TRUE(w.Upload(std::span(whole)).ok());
  std::vector<uint8_t> expected = whole;
  const uint64_t split = 64 * 128;
  for (const auto& [offset, count] : {std::pair<uint64_t, uint64_t>{split - 1, 2},
                                      {split, 1},
                                      {split - 1, 1},
                                      {0, all},
                                      {all, 0},
                                      {all - 1, 1},
                                      {split - 100, 300}}) {
    const std::vector<uint8_t> patch = Bytes(count, static_cast<uint8_t>(offset + 7));
    ASSERT_TRUE(w.Upload(std::span(patch), offset).ok());
    std::copy(patch.begin(), patch.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
    std::vector<uint8_t> read(all);
    ASSERT_TRUE(w.Download(std::span(read)).ok());
    EXPECT_EQ(read, expected) << offset << "+" << count;
    std::vector<uint8_t> piece(count);
    ASSERT_TRUE(w.Download(std::span(piece), offset).ok());
    EXPECT_EQ(piece, patch);
  }
}

TEST_F(TensorsTest, CopiesStopAtTheEnd) {
  dak::Tensor w = *session_.Allocate(Spec("w"));
  std::vector<uint8_t> bytes(2);
  EXPECT_EQ(w.Upload(std::span(bytes), 128 * 128 - 1).field(), "bytes");
  EXPECT_EQ(w.Download(std::span(bytes), 128 * 128 + 1).field(), "offset_bytes");
  EXPECT_EQ(w.Download(std::span(bytes), ~uint64_t{0}).code(), DAK_OUT_OF_RANGE);
}

TEST_F(TensorsTest, ReusedMemoryIsZeroAgain) {
  ASSERT_TRUE(session_.Allocate(Spec("keeps the segments")).ok());
  dak::Tensor dirty = *session_.Allocate(Spec("dirty"));
  const std::vector<uint8_t> bytes(128 * 128, 0xff);
  ASSERT_TRUE(dirty.Upload(std::span(bytes)).ok());
  const uint64_t address = dirty.GetParts()->front().device_address;
  ASSERT_TRUE(session_.Free(dirty).ok());
  dak::Tensor fresh = *session_.Allocate(Spec("fresh"));
  ASSERT_EQ(fresh.GetParts()->front().device_address, address) << "the test needs reuse";
  std::vector<uint8_t> read(bytes.size(), 1);
  ASSERT_TRUE(fresh.Download(std::span(read)).ok());
  EXPECT_THAT(read, Each(0));
}

TEST_F(TensorsTest, FindsByGroupAndName) {
  dak::Tensor w = *session_.Allocate(Spec("w"), "g");
  EXPECT_EQ(session_.Find("w", "g")->get(), w.get());
  EXPECT_EQ(session_.Find("w").status().code(), DAK_NOT_FOUND);
  ASSERT_TRUE(session_.Free(w).ok());
  EXPECT_EQ(session_.Find("w", "g").status().code(), DAK_NOT_FOUND);
}

TEST_F(TensorsTest, FreeingReleasesMappingsAndDescriptors) {
  const size_t mappings = SegmentMappings();
  const size_t descriptors = OpenDescriptors();
  for (int round = 0; round < 5; ++round) {
    const std::vector<dak::TensorSpec> specs = {Spec("a"), Spec("b")};
    auto tensors = session_.Allocate(specs);
    ASSERT_TRUE(tensors.ok());
    EXPECT_GT(SegmentMappings(), mappings);
    ASSERT_TRUE(session_.Free(*tensors).ok());
  }
  EXPECT_EQ(SegmentMappings(), mappings);
  EXPECT_LE(OpenDescriptors(), descriptors);  // gRPC closes an earlier test's when it gets to it
  EXPECT_EQ(daemon_.segment_count(), 0u);
}

TEST_F(TensorsTest, AMappingThatFailsHalfwayGivesAllBack) {
  const size_t mappings = SegmentMappings();
  const size_t descriptors = OpenDescriptors();
  for (const int bad : {0, 1}) {
    daemon_.Set([&](FakeDaemon::Faults* faults) { faults->bad_segment_in = bad; });
    const dak::Status status = session_.Allocate(Spec("w")).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr("given back"));
    EXPECT_EQ(daemon_.tensor_count(), 0u);
    EXPECT_EQ(daemon_.segment_count(), 0u);
    EXPECT_EQ(SegmentMappings(), mappings);
    EXPECT_LE(OpenDescriptors(), descriptors);
  }
  EXPECT_TRUE(session_.Allocate(Spec("w")).ok());
}

TEST_F(TensorsTest, TicketsThatAreRefusedGiveAllBack) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->redeem_code = DAK_UNAUTHENTICATED; });
  const dak::Status status = session_.Allocate(Spec("w")).status();
  EXPECT_EQ(status.code(), DAK_UNAUTHENTICATED);
  EXPECT_EQ(status.reason(), "BAD_TICKET");
  EXPECT_EQ(daemon_.tensor_count(), 0u);
}

TEST_F(TensorsTest, AnAnswerThatContradictsItselfGivesAllBack) {
  const std::vector<std::function<void(v1::AllocateTensorsResponse*)>> lies = {
      [](auto* r) { r->mutable_tensors(0)->mutable_parts(1)->set_offset_bytes(uint64_t{1} << 40); },
      [](auto* r) { r->mutable_tensors(0)->mutable_parts(1)->set_first_row(1); },
      [](auto* r) { r->mutable_tensors(0)->mutable_parts(0)->set_bytes(1); },
      [](auto* r) { r->mutable_tensors(0)->mutable_parts(0)->set_segment_id(4711); },
      [](auto* r) { r->mutable_tensors(0)->mutable_parts()->Clear(); },
      [](auto* r) { r->mutable_tensors(0)->set_rows(0); },
      [](auto* r) { r->mutable_tensors(0)->set_rows(~uint64_t{0}); },
      [](auto* r) { r->mutable_tensors(0)->set_data_type(static_cast<v1::DataType>(99)); },
      [](auto* r) { r->mutable_tensors(0)->mutable_parts(0)->set_tensor_map("short"); },
      [](auto* r) { r->mutable_segments(0)->set_segment_id(99); },
      [](auto* r) { r->mutable_tensors(0)->mutable_parts(0)->set_tier(static_cast<v1::Tier>(9)); },
      [](auto* r) { *r->add_tensors() = r->tensors(0); }};
  for (size_t i = 0; i < lies.size(); ++i) {
    daemon_.Set([&](FakeDaemon::Faults* faults) { faults->edit_allocation = lies[i]; });
    EXPECT_FALSE(session_.Allocate(Spec("w")).ok()) << i;
    daemon_.Set([](FakeDaemon::Faults* faults) { faults->edit_allocation = nullptr; });
    EXPECT_EQ(daemon_.tensor_count(), 0u) << i;
    EXPECT_EQ(daemon_.segment_count(), 0u) << i;
    auto w = session_.Allocate(Spec("w"));
    ASSERT_TRUE(w.ok()) << i << w.status().ToString();
    ASSERT_TRUE(session_.Free(*w).ok()) << i;
  }
}

TEST_F(TensorsTest, AnAllocationWhoseAnswerIsLostIsGivenBackByTheNextCall) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->after["AllocateTensors"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  EXPECT_EQ(session_.Allocate(Spec("w")).status().code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(daemon_.tensor_count(), 1u);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after.clear(); });
  ASSERT_TRUE(session_.Allocate(Spec("w")).ok());
  EXPECT_EQ(daemon_.tensor_count(), 1u);
}

TEST_F(TensorsTest, ARollbackThatFailsIsMadeUpForByTheNextCall) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->bad_segment_in = 0;
    faults->before["FreeTensors"] = Answer(grpc::StatusCode::RESOURCE_EXHAUSTED);
  });
  EXPECT_FALSE(session_.Allocate(Spec("w")).ok());
  EXPECT_EQ(daemon_.tensor_count(), 1u);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->before.clear(); });
  ASSERT_TRUE(session_.Allocate(Spec("w")).ok());
  EXPECT_EQ(daemon_.tensor_count(), 1u);
}

TEST_F(TensorsTest, DescriptorsThatComeTooLateAreThrownAway) {
  dak::Session hasty = *TryOpen(std::chrono::milliseconds(200));
  const size_t files = OpenMemoryFiles();
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->mute_handles = true; });
  EXPECT_EQ(hasty.Allocate(Spec("w")).status().code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(daemon_.tensor_count(), 0u);
  daemon_.Unmute();
  dak::Tensor w = *hasty.Allocate(Spec("w"));
  EXPECT_EQ(w.GetInfo()->part_count, 2u);
  EXPECT_EQ(OpenMemoryFiles(), files + 2) << "only the fake daemon's two new segments";
}

TEST_F(TensorsTest, WhatWasDeliveredIsMappedWithoutATicket) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->deliver = true;
    faults->redeem_code = 16;
  });
  dak::Tensor w = *session_.Allocate(Spec("w"));
  const std::vector<uint8_t> written = Bytes(128 * 128, 7);
  std::vector<uint8_t> read(written.size());
  ASSERT_TRUE(w.Upload(std::span(written)).ok());
  ASSERT_TRUE(w.Download(std::span(read)).ok());
  EXPECT_EQ(read, written);
}

TEST_F(TensorsTest, ADeliveryWhoseCallFailedIsDropped) {
  const size_t files = OpenMemoryFiles();
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->deliver = true;
    faults->after["AllocateTensors"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  EXPECT_EQ(session_.Allocate(Spec("w")).status().code(), DAK_DEADLINE_EXCEEDED);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after.clear(); });
  dak::Tensor w = *session_.Allocate(Spec("w"));
  EXPECT_EQ(w.GetInfo()->part_count, 2u);
  EXPECT_EQ(daemon_.tensor_count(), 1u);
  EXPECT_EQ(OpenMemoryFiles(), files + 2) << "only the fake daemon's two new segments";
}

TEST_F(TensorsTest, ADeliveryThatDoesNotComeGivesAllBack) {
  dak::Session hasty = *TryOpen(std::chrono::milliseconds(200));
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->edit_allocation = [](v1::AllocateTensorsResponse* response) {
      for (v1::SegmentGrant& grant : *response->mutable_segments()) grant.set_delivered(true);
    };
  });
  EXPECT_EQ(hasty.Allocate(Spec("w")).status().code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(daemon_.tensor_count(), 0u);
}

TEST_F(TensorsTest, ADeliveryOfOneSegmentOfTwoGivesAllBack) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->deliver = true;
    faults->edit_allocation = [](v1::AllocateTensorsResponse* response) {
      response->mutable_segments(0)->set_delivered(false);
    };
  });
  EXPECT_EQ(session_.Allocate(Spec("w")).status().code(), DAK_INTERNAL);
  EXPECT_EQ(daemon_.tensor_count(), 0u);
}

TEST_F(TensorsTest, FreeRefusesBeforeItUnmaps) {
  dak::Tensor w = *session_.Allocate(Spec("w"));
  int other = 0;
  const std::vector<dak::Tensor> with_stranger = {w, dak::Tensor(reinterpret_cast<dak_tensor*>(&other))};
  EXPECT_EQ(session_.Free(with_stranger).field(), "tensors[1]");
  const std::vector<dak::Tensor> twice = {w, w};
  EXPECT_EQ(session_.Free(twice).field(), "tensors[1]");
  EXPECT_EQ(daemon_.calls("FreeTensors"), 0);
  std::vector<uint8_t> read(1);
  EXPECT_TRUE(w.Download(std::span(read)).ok());
}

TEST_F(TensorsTest, AFreeThatIsRefusedLeavesTensorsThatCanOnlyBeFreed) {
  const std::vector<dak::TensorSpec> specs = {Spec("a"), Spec("b")};
  std::vector<dak::Tensor> tensors = *session_.Allocate(specs);
  daemon_.Set(
      [](FakeDaemon::Faults* faults) { faults->before["FreeTensors"] = Answer(grpc::StatusCode::RESOURCE_EXHAUSTED); });
  // Both tensors share the segments, so freeing one unmaps nothing and changes nothing.
  EXPECT_EQ(session_.Free(tensors[0]).code(), DAK_RESOURCE_EXHAUSTED);
  std::vector<uint8_t> read(1);
  EXPECT_TRUE(tensors[0].Download(std::span(read)).ok());
  EXPECT_EQ(session_.Free(tensors).code(), DAK_RESOURCE_EXHAUSTED);
  for (dak::Tensor tensor : tensors) {
    EXPECT_EQ(tensor.Download(std::span(read)).reason(), "UNMAPPED");
    EXPECT_EQ(tensor.Upload(std::span(read)).code(), DAK_FAILED_PRECONDITION);
    EXPECT_EQ(tensor.GetParts().status().reason(), "UNMAPPED");
    EXPECT_EQ(tensor.VerifyMap(0).reason(), "UNMAPPED");
    EXPECT_EQ(session_.Gemm(tensor, 64, 1 << 20, 1).reason(), "UNMAPPED");
    EXPECT_TRUE(tensor.GetInfo().ok());
  }
  EXPECT_EQ(session_.Publish("default", "p", "f").reason(), "UNMAPPED");
  EXPECT_EQ(session_.Allocate(Spec("into the unmapped segment")).status().code(), DAK_FAILED_PRECONDITION);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->before.clear(); });
  EXPECT_TRUE(session_.Free(tensors).ok());
  EXPECT_EQ(daemon_.tensor_count(), 0u);
  EXPECT_TRUE(session_.Allocate(Spec("a")).ok());
}

TEST_F(TensorsTest, AFreeWhoseAnswerIsLostCanBeRepeated) {
  dak::Tensor w = *session_.Allocate(Spec("w"));
  daemon_.Set(
      [](FakeDaemon::Faults* faults) { faults->after["FreeTensors"] = Answer(grpc::StatusCode::DEADLINE_EXCEEDED); });
  EXPECT_EQ(session_.Free(w).code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(daemon_.tensor_count(), 0u);
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after.clear(); });
  EXPECT_TRUE(session_.Free(w).ok());
  EXPECT_EQ(session_.Find("w").status().code(), DAK_NOT_FOUND);
}

TEST_F(TensorsTest, AFreeOverWhichTheDaemonDiesIsDone) {
  const size_t mappings = SegmentMappings();
  dak::Tensor w = *session_.Allocate(Spec("w"));
  std::thread stopper;
  daemon_.Set([&](FakeDaemon::Faults* faults) {
    faults->before["FreeTensors"] = [&] {
      stopper = std::thread([&] { daemon_.Stop(); });
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "dying");
    };
  });
  const dak::Status status = session_.Free(w);
  stopper.join();
  // Either the connection's end was seen in time, or the tensor waits for a second free that only frees it here.
  EXPECT_TRUE(status.ok() || status.code() == DAK_UNAVAILABLE) << status.ToString();
  EXPECT_EQ(SegmentMappings(), mappings);
  session_.Close();
}

TEST_F(TensorsTest, SettlingReadsEveryPageOfTheList) {
  std::vector<dak::TensorSpec> specs;
  for (int i = 0; i < 1024; ++i) specs.push_back(Spec("t" + std::to_string(i), 1, 0));
  ASSERT_TRUE(session_.Allocate(specs).ok());
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after["AllocateTensors"] = Answer(grpc::StatusCode::UNKNOWN); });
  EXPECT_FALSE(session_.Allocate(Spec("lost")).ok());
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->after.clear(); });
  ASSERT_TRUE(session_.Allocate(Spec("kept")).ok());
  EXPECT_EQ(daemon_.calls("ListTensors"), 2);
  EXPECT_EQ(daemon_.tensor_count(), 1025u);
}

TEST_F(TensorsTest, ManyThreadsUseOneSession) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string group = "g" + std::to_string(t);
        auto w = session_.Allocate(Spec("w"), group);
        ASSERT_TRUE(w.ok()) << w.status().ToString();
        const std::vector<uint8_t> bytes = Bytes(128 * 128, static_cast<uint8_t>(t * 20 + i));
        ASSERT_TRUE(w->Upload(std::span(bytes)).ok());
        std::vector<uint8_t> read(bytes.size());
        ASSERT_TRUE(w->Download(std::span(read)).ok());
        EXPECT_EQ(read, bytes);
        EXPECT_TRUE(session_.GetInfo().ok());
        ASSERT_TRUE(session_.Free(*w).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(daemon_.segment_count(), 0u);
}

}  // namespace
}  // namespace dak::testing
