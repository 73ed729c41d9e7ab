// One client from open to death, over real sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstring>

#include "dak/v1/control_page.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using testing::ElementsAre;

TEST(LifecycleTest, OpensAllocatesFetchesFreesAndCloses) {
  TestDaemon daemon;
  TestSession session(daemon.options().runtime_dir);
  EXPECT_EQ(session.opened.device().kind(), "emulated");
  EXPECT_EQ(session.opened.session_token().size(), 16u);
  EXPECT_EQ(session.opened.device().granule_bytes(), 2 * kMiB);

  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(session.Allocate("layers", {TestSession::Spec("w0", 1024, 1024, 0.25), TestSession::Spec("w1", 8, 512)},
                               &allocated),
              IsOk());
  ASSERT_EQ(allocated.tensors_size(), 2);
  ASSERT_EQ(allocated.tensors(0).parts_size(), 2);
  EXPECT_EQ(allocated.tensors(0).parts(0).rows(), 768u);
  EXPECT_EQ(allocated.tensors(0).parts(1).first_row(), 768u);
  EXPECT_EQ(allocated.tensors(0).parts(1).rows(), 256u);
  EXPECT_EQ(allocated.tensors(0).parts(1).tier(), v1::TIER_HOST);
  EXPECT_EQ(allocated.tensors(0).parts(0).tensor_map().size(), 128u);
  // Both tensors' local rows share one segment; 1.5 MiB + 8 KiB round up to one granule.
  ASSERT_EQ(allocated.segments_size(), 2);
  EXPECT_EQ(allocated.tensors(0).parts(0).segment_id(), allocated.tensors(1).parts(0).segment_id());
  EXPECT_EQ(daemon.DeviceUsage(), (TierArray{2 * kMiB, 2 * kMiB, 0}));
  EXPECT_EQ(daemon.LedgerUsage(), daemon.DeviceUsage());

  ReceivedReply fetched = session.connection.Fetch({allocated.segments(0).ticket(), allocated.segments(1).ticket()});
  ASSERT_EQ(fetched.reply.code(), 0) << fetched.reply.message();
  ASSERT_EQ(fetched.fds.size(), 2u);
  EXPECT_EQ(fetched.reply.handles(0).segment_id(), allocated.segments(0).segment_id());
  EXPECT_EQ(fetched.reply.handles(1).tier(), v1::TIER_HOST);

  v1::FreeTensorsResponse freed;
  ASSERT_THAT(session.Free({allocated.tensors(0).tensor_id()}, &freed), IsOk());
  EXPECT_THAT(freed.released_segment_ids(), ElementsAre(allocated.tensors(0).parts(1).segment_id()));
  EXPECT_EQ(daemon.DeviceUsage(), (TierArray{2 * kMiB, 0, 0}));
  v1::CloseSessionResponse closed;
  ASSERT_THAT(session.Close(&closed), IsOk());
  ASSERT_EQ(closed.freed_size(), 1);
  EXPECT_EQ(closed.freed(0).bytes(), 2 * kMiB);
  EXPECT_EQ(daemon.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon.LedgerUsage(), TierArray{});
}

TEST(LifecycleTest, SecondAllocationIsPlacedIntoTheFirstSegment) {
  TestDaemon daemon;
  TestSession session(daemon.options().runtime_dir);
  v1::AllocateTensorsResponse first, second, other_group;
  ASSERT_THAT(session.Allocate("a", {TestSession::Spec("w0", 64, 64)}, &first), IsOk());
  ASSERT_THAT(session.Allocate("a", {TestSession::Spec("w1", 64, 64)}, &second), IsOk());
  ASSERT_THAT(session.Allocate("b", {TestSession::Spec("w0", 64, 64)}, &other_group), IsOk());
  EXPECT_EQ(second.segments_size(), 0);
  EXPECT_EQ(second.tensors(0).parts(0).segment_id(), first.tensors(0).parts(0).segment_id());
  EXPECT_EQ(second.tensors(0).parts(0).offset_bytes(), 8192u);
  // Another group never shares a segment, since it may be published by itself.
  ASSERT_EQ(other_group.segments_size(), 1);
  EXPECT_NE(other_group.tensors(0).parts(0).segment_id(), first.tensors(0).parts(0).segment_id());
}

TEST(LifecycleTest, ControlTicketGivesBothPagesAndOnlyTheReportPageIsWritable) {
  TestDaemon daemon;
  TestSession session(daemon.options().runtime_dir);
  ReceivedReply fetched = session.connection.Fetch({session.opened.control_ticket()});
  ASSERT_EQ(fetched.fds.size(), 2u);
  ASSERT_EQ(fetched.reply.handles(0).purpose(), v1::Handle::PURPOSE_CONTROL_PAGE);
  ASSERT_EQ(fetched.reply.handles(1).purpose(), v1::Handle::PURPOSE_REPORT_PAGE);
  auto map = [&](size_t i, int protection) {
    return ::mmap(nullptr, v1::kControlPageBytes, protection, MAP_SHARED, fetched.fds[i].get(), 0);
  };
  EXPECT_EQ(map(0, PROT_READ | PROT_WRITE), MAP_FAILED);
  void* control_memory = map(0, PROT_READ);
  void* report_memory = map(1, PROT_READ | PROT_WRITE);
  ASSERT_NE(control_memory, MAP_FAILED);
  ASSERT_NE(report_memory, MAP_FAILED);
  const auto* control = static_cast<const v1::ControlPage*>(control_memory);
  EXPECT_EQ(control->header.magic, v1::kControlPageMagic);
  EXPECT_EQ(control->header.version, v1::kControlPageVersion);
  EXPECT_EQ(control->header.session_id, session.id());
  EXPECT_EQ(control->header.link_count, 1u);
  EXPECT_GT(control->links[0].window_bytes, 0u);
  EXPECT_GT(control->links[0].epoch, 0u);
  EXPECT_EQ(static_cast<v1::ReportPage*>(report_memory)->header.magic, v1::kReportPageMagic);
  // Nor can the client shrink a page under the daemon.
  EXPECT_NE(::ftruncate(fetched.fds[1].get(), 0), 0);
  ::munmap(control_memory, v1::kControlPageBytes);
  ::munmap(report_memory, v1::kControlPageBytes);
}

TEST(LifecycleTest, ConnectionDeathFreesEverything) {
  TestDaemon daemon;
  TestSession session(daemon.options().runtime_dir);
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(session.Allocate("layers", {TestSession::Spec("w0", 4096, 4096, 0.5)}, &allocated), IsOk());
  ASSERT_EQ(daemon.DeviceUsage(), (TierArray{16 * kMiB, 16 * kMiB, 0}));
  const auto begin = std::chrono::steady_clock::now();
  session.connection.Close();
  EXPECT_TRUE(WaitUntil([&] { return daemon.DeviceUsage() == TierArray{} && daemon.LedgerUsage() == TierArray{}; }));
  const std::chrono::duration<double, std::milli> waited = std::chrono::steady_clock::now() - begin;
  std::printf("reclaimed %.3f ms after the connection ended\n", waited.count());
  EXPECT_THAT(session.Free({allocated.tensors(0).tensor_id()}),
              FailsWith(grpc::StatusCode::UNAUTHENTICATED, "UNKNOWN_SESSION", "session_token"));
}

}  // namespace
}  // namespace dak::daemon
