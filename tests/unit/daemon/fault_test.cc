// The driver fails, one call after the other: after each failure ledger and device are as they were.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "allocator/base/error_detail.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;

absl::Status Injected() {
  return WithDetail(absl::InternalError("cuMemCreate: CUDA_ERROR_INJECTED (999)"), {.reason = "DRIVER_ERROR"});
}

int OpenDescriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  int count = 0;
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

TEST(FaultTest, AllocationRollsBackEveryFailure) {
  TestDaemon daemon;
  TestSession session(daemon.options().runtime_dir);
  v1::AllocateTensorsResponse response;
  // One segment a tier is there, with room for some of what follows.
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("base", 256, 1024, 0.5)}, &response), IsOk());
  const std::vector<v1::TensorSpec> specs = {TestSession::Spec("fits", 128, 1024, 0.5),
                                             TestSession::Spec("large", 4096, 1024, 0.5)};
  const TierArray before = daemon.DeviceUsage();
  const int descriptors = OpenDescriptors();
  int failures = 0;
  for (uint64_t n = 1;; ++n) {
    daemon.device().FailNthOfAny(n, Injected());
    const grpc::Status status = session.Allocate("g", specs, &response);
    if (!daemon.device().fired()) {
      ASSERT_THAT(status, IsOk());
      break;
    }
    ++failures;
    EXPECT_EQ(status.error_code(), StatusCode::INTERNAL);
    EXPECT_EQ(DetailIn(status).reason(), "DRIVER_ERROR");
    EXPECT_THAT(status.error_message(), testing::HasSubstr("CUDA_ERROR_INJECTED (999)"));
    EXPECT_EQ(daemon.DeviceUsage(), before) << "after failure " << n;
    EXPECT_EQ(daemon.LedgerUsage(), before) << "after failure " << n;
    EXPECT_LE(OpenDescriptors(), descriptors) << "after failure " << n;
  }
  EXPECT_EQ(failures, 8);  // two segments made and exported, four descriptors encoded
  ASSERT_THAT(session.Close(), IsOk());
  EXPECT_EQ(daemon.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon.LedgerUsage(), TierArray{});
}

TEST(FaultTest, AllocationIntoANewGroupLeavesNoGroupBehind) {
  TestDaemon daemon([](DaemonOptions* options) { options->limits.max_groups_per_session = 1; });
  TestSession session(daemon.options().runtime_dir);
  v1::AllocateTensorsResponse response;
  daemon.device().FailNth(FaultingDevice::Method::kCreateSegment, 1, Injected());
  EXPECT_FALSE(session.Allocate("a", {TestSession::Spec("w", 64, 64)}, &response).ok());
  EXPECT_THAT(session.Allocate("b", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
}

TEST(FaultTest, OpeningASessionRollsBackEveryFailureAndTheTicketStaysGood) {
  TestDaemon daemon([](DaemonOptions* options) { options->limits.max_sessions = 1; });
  Stubs stubs(daemon.options().runtime_dir);
  HandleConnection connection(daemon.options().runtime_dir);
  v1::OpenSessionRequest request;
  request.set_api_version(1);
  request.set_connection_ticket(connection.Receive().reply.connection_ticket());
  request.set_name("s");
  v1::OpenSessionResponse response;
  int failures = 0;
  for (uint64_t n = 1;; ++n) {
    daemon.device().FailNthOfAny(n, Injected());
    const grpc::Status status = Call(*stubs.session, &v1::SessionService::Stub::OpenSession, request, &response);
    if (!daemon.device().fired()) {
      EXPECT_THAT(status, IsOk());
      break;
    }
    ++failures;
    EXPECT_EQ(DetailIn(status).reason(), "DRIVER_ERROR");
  }
  EXPECT_EQ(failures, 2);  // the two pages
}

TEST(FaultTest, AttachRollsBackEveryFailure) {
  TestDaemon daemon;
  TestSession publisher(daemon.options().runtime_dir), reader(daemon.options().runtime_dir, "reader");
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(publisher.Allocate("g", {TestSession::Spec("w", 128, 64, 0.5)}, &allocated), IsOk());
  ASSERT_THAT(publisher.Publish("g", "p", "f"), IsOk());
  ASSERT_THAT(publisher.Detach("p"), IsOk());
  int failures = 0;
  for (uint64_t n = 1;; ++n) {
    daemon.device().FailNthOfAny(n, Injected());
    const grpc::Status status = reader.Attach("p", "f");
    if (!daemon.device().fired()) {
      EXPECT_THAT(status, IsOk());
      break;
    }
    ++failures;
    EXPECT_EQ(DetailIn(status).reason(), "DRIVER_ERROR");
    v1::ListPublicationsResponse list;
    ASSERT_THAT(
        Call(*reader.stubs.tensor, &v1::TensorService::Stub::ListPublications, v1::ListPublicationsRequest(), &list),
        IsOk());
    EXPECT_EQ(list.publications(0).attached_sessions(), 0u);
  }
  EXPECT_EQ(failures, 4);  // two descriptors encoded, two segments exported
}

TEST(FaultTest, OutOfMemoryOfTheDriverIsNotOutOfTheLedger) {
  TestDaemon daemon;
  TestSession session(daemon.options().runtime_dir);
  v1::AllocateTensorsResponse response;
  daemon.device().FailNth(FaultingDevice::Method::kCreateSegment, 2,
                          WithDetail(absl::ResourceExhaustedError("out of memory"), {.reason = "DRIVER_ERROR"}));
  const grpc::Status status = session.Allocate("g", {TestSession::Spec("w", 128, 64, 0.5)}, &response);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailIn(status).reason(), "DRIVER_ERROR");
  EXPECT_EQ(daemon.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon.LedgerUsage(), TierArray{});
}

// Clients that die at any moment of an allocation leave nothing behind.
TEST(FaultTest, DeathDuringAllocationLeavesNothingBehind) {
  TestDaemon daemon;
  for (int round = 0; round < 100; ++round) {
    TestSession session(daemon.options().runtime_dir);
    const v1::AllocateTensorsRequest request =
        session.AllocateRequest("g", {TestSession::Spec("w", 4096, 1024, 0.5), TestSession::Spec("v", 64, 64)});
    std::thread caller([&] {
      v1::AllocateTensorsResponse response;
      const grpc::Status status =
          Call(*session.stubs.tensor, &v1::TensorService::Stub::AllocateTensors, request, &response);
      EXPECT_TRUE(status.ok() || status.error_code() == StatusCode::UNAUTHENTICATED) << status.error_message();
    });
    // Spread over the call's life, without a clock: a few round trips of another kind.
    for (int i = 0; i < round % 7; ++i) session.connection.Fetch({std::string(16, 'x')});
    session.connection.Close();
    caller.join();
    ASSERT_TRUE(WaitUntil([&] { return daemon.DeviceUsage() == TierArray{} && daemon.LedgerUsage() == TierArray{}; }))
        << "round " << round;
  }
}

}  // namespace
}  // namespace dak::daemon
