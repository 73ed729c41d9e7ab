// handles.sock: tickets that are wrong, spent or foreign, packets that aren't packets, users that aren't allowed.
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

constexpr int kInvalidArgument = 3, kPermissionDenied = 7, kResourceExhausted = 8, kFailedPrecondition = 9,
              kUnauthenticated = 16;

class HandlesTest : public testing::Test {
 protected:
  std::string AllocateForTicket(TestSession& session, const std::string& name) {
    v1::AllocateTensorsResponse response;
    EXPECT_THAT(session.Allocate(name, {TestSession::Spec("w", 64, 64)}, &response), IsOk());
    return response.segments(0).ticket();
  }
  v1::AllocateTensorsResponse AllocateForDelivery(const std::string& name) {
    v1::AllocateTensorsRequest request = session_.AllocateRequest(name, {TestSession::Spec("w", 1024, 1024, 0.5)});
    request.set_deliver_handles(true);
    v1::AllocateTensorsResponse response;
    EXPECT_THAT(Call(*session_.stubs.tensor, &v1::TensorService::Stub::AllocateTensors, request, &response), IsOk());
    return response;
  }
  TestDaemon daemon_;
  TestSession session_{daemon_.options().runtime_dir};
};

TEST_F(HandlesTest, SpentTicketIsRefusedAndTheConnectionGoesOn) {
  const std::string ticket = AllocateForTicket(session_, "a");
  ASSERT_EQ(session_.connection.Fetch({ticket}).fds.size(), 1u);
  const ReceivedReply again = session_.connection.Fetch({ticket});
  EXPECT_EQ(again.reply.code(), kUnauthenticated);
  EXPECT_EQ(again.reply.detail().reason(), "BAD_TICKET");
  EXPECT_EQ(again.reply.detail().field(), "tickets[0]");
  EXPECT_TRUE(again.fds.empty());
  EXPECT_EQ(session_.connection.Fetch({AllocateForTicket(session_, "b")}).fds.size(), 1u);
}

TEST_F(HandlesTest, ForeignTicketIsRefusedAndStaysGoodForItsOwner) {
  TestSession thief(daemon_.options().runtime_dir, "thief");
  const std::string ticket = AllocateForTicket(session_, "a");
  EXPECT_EQ(thief.connection.Fetch({ticket}).reply.code(), kUnauthenticated);
  EXPECT_EQ(thief.connection.Fetch({session_.opened.control_ticket()}).reply.code(), kUnauthenticated);
  EXPECT_EQ(session_.connection.Fetch({ticket}).fds.size(), 1u);
}

TEST_F(HandlesTest, OneBadTicketSpendsNone) {
  const std::string a = AllocateForTicket(session_, "a");
  const std::string b = AllocateForTicket(session_, "b");
  const ReceivedReply refused = session_.connection.Fetch({a, std::string(16, 'x'), b});
  EXPECT_EQ(refused.reply.code(), kUnauthenticated);
  EXPECT_EQ(refused.reply.detail().field(), "tickets[1]");
  EXPECT_EQ(session_.connection.Fetch({a, b}).fds.size(), 2u);
}

TEST_F(HandlesTest, TicketOfAFreedSegmentIsWorthless) {
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session_.Allocate("a", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  ASSERT_THAT(session_.Free({response.tensors(0).tensor_id()}), IsOk());
  EXPECT_EQ(session_.connection.Fetch({response.segments(0).ticket()}).reply.code(), kUnauthenticated);
}

TEST_F(HandlesTest, DeliveryIsThereBeforeTheAnswerAndLeavesNoTicket) {
  const v1::AllocateTensorsResponse response = AllocateForDelivery("a");
  ASSERT_EQ(response.segments_size(), 2);
  pollfd readable = {.fd = session_.connection.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&readable, 1, 0), 1);
  const ReceivedReply delivery = session_.connection.Receive();
  EXPECT_TRUE(delivery.reply.delivery());
  ASSERT_EQ(delivery.fds.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(response.segments(i).delivered());
    EXPECT_TRUE(response.segments(i).ticket().empty());
    EXPECT_EQ(delivery.reply.handles(i).segment_id(), response.segments(i).segment_id());
    EXPECT_EQ(delivery.reply.handles(i).bytes(), response.segments(i).bytes());
  }
  EXPECT_EQ(session_.connection.Fetch({AllocateForTicket(session_, "b")}).fds.size(), 1u);
}

TEST_F(HandlesTest, ConnectionThatTakesNoMoreGetsTickets) {
  int deliveries = 0;
  v1::AllocateTensorsResponse response = AllocateForDelivery("a");
  for (; response.segments(0).delivered(); response = AllocateForDelivery("a")) {
    ASSERT_LT(++deliveries, 10'000);
    ASSERT_THAT(session_.Free({response.tensors(0).tensor_id()}), IsOk());
  }
  EXPECT_FALSE(response.segments(1).delivered());
  for (int i = 0; i < deliveries; ++i) ASSERT_TRUE(session_.connection.Receive().reply.delivery());
  const ReceivedReply fetched =
      session_.connection.Fetch({response.segments(0).ticket(), response.segments(1).ticket()});
  EXPECT_EQ(fetched.fds.size(), 2u);
  EXPECT_FALSE(fetched.reply.delivery());
}

TEST_F(HandlesTest, MostTicketsOfOneRequestAnd65Refused) {
  std::vector<std::string> tickets;
  for (int i = 0; i < 32; ++i) tickets.push_back(AllocateForTicket(session_, "g" + std::to_string(i)));
  EXPECT_EQ(session_.connection.Fetch(tickets).fds.size(), 32u);
  const ReceivedReply refused = session_.connection.Fetch(std::vector<std::string>(65, tickets[0]));
  EXPECT_EQ(refused.reply.code(), kInvalidArgument);
  EXPECT_EQ(refused.reply.detail().field(), "tickets");
}

TEST_F(HandlesTest, ConnectionWithoutASessionHasNoHandles) {
  HandleConnection connection(daemon_.options().runtime_dir);
  const ReceivedReply greeting = connection.Receive();
  EXPECT_EQ(greeting.reply.api_version(), 1u);
  EXPECT_EQ(greeting.reply.connection_ticket().size(), 16u);
  EXPECT_FALSE(greeting.reply.daemon_version().empty());
  const v1::HandleReply refused = connection.Fetch({AllocateForTicket(session_, "a")}).reply;
  EXPECT_EQ(refused.code(), kFailedPrecondition);
  EXPECT_EQ(refused.detail().reason(), "NO_SESSION");
}

TEST_F(HandlesTest, GarbageIsAnsweredAndCostsNothing) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; ++i) {
    std::string packet(1 + random() % 300, '\0');
    for (char& c : packet) c = static_cast<char>(random());
    session_.connection.SendBytes(packet);
    const ReceivedReply reply = session_.connection.Receive();
    ASSERT_FALSE(reply.ended);
    EXPECT_TRUE(reply.reply.code() == kInvalidArgument || reply.reply.code() == kUnauthenticated);
    EXPECT_TRUE(reply.fds.empty());
  }
  session_.connection.SendBytes(std::string(70'000, 'x'));  // longer than a packet may be
  EXPECT_EQ(session_.connection.Receive().reply.detail().reason(), "MALFORMED");
  EXPECT_EQ(session_.connection.Fetch({AllocateForTicket(session_, "a")}).fds.size(), 1u);
}

// Flips every byte of a good request, one at a time.
TEST_F(HandlesTest, DamagedRequestNeverGivesTheHandle) {
  const std::string ticket = AllocateForTicket(session_, "a");
  v1::HandleRequest request;
  request.add_tickets(ticket);
  const std::string good = request.SerializeAsString();
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {1, 0x55, 0x80}) {
      std::string packet = good;
      packet[i] = static_cast<char>(packet[i] ^ flip);
      session_.connection.SendBytes(packet);
      const ReceivedReply reply = session_.connection.Receive();
      ASSERT_FALSE(reply.ended);
      EXPECT_NE(reply.reply.code(), 0) << "byte " << i;
    }
  }
  EXPECT_EQ(session_.connection.Fetch({ticket}).fds.size(), 1u);
}

TEST_F(HandlesTest, DescriptorsFromClientsAreDropped) {
  char byte = 1;
  iovec data = {.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int own = session_.connection.fd();
  std::memcpy(CMSG_DATA(header), &own, sizeof(int));
  ASSERT_EQ(::sendmsg(own, &message, 0), 1);
  EXPECT_EQ(session_.connection.Receive().reply.detail().reason(), "MALFORMED");
}

// A client that asks on and on without reading must not block the daemon's thread.
TEST_F(HandlesTest, ClientThatDoesNotReadIsDropped) {
  TestSession deaf(daemon_.options().runtime_dir, "deaf");
  AllocateForTicket(deaf, "a");
  v1::HandleRequest request;
  for (int i = 0; i < 64; ++i) request.add_tickets(std::string(16, 'x'));
  const std::string packet = request.SerializeAsString();
  EXPECT_TRUE(WaitUntil([&] {
    return ::send(deaf.connection.fd(), packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
           errno != EAGAIN;
  })) << "it was never cut off";
  EXPECT_TRUE(WaitUntil([&] { return daemon_.DeviceUsage() == TierArray{}; }));
  EXPECT_EQ(session_.connection.Fetch({AllocateForTicket(session_, "a")}).fds.size(), 1u);
}

TEST(HandlesLimitTest, ConnectionsAreBounded) {
  TestDaemon daemon([](DaemonOptions* options) { options->limits.max_connections = 2; });
  HandleConnection a(daemon.options().runtime_dir);
  EXPECT_EQ(a.Receive().reply.code(), 0);
  {
    HandleConnection b(daemon.options().runtime_dir);
    EXPECT_EQ(b.Receive().reply.code(), 0);
    HandleConnection c(daemon.options().runtime_dir);
    const v1::HandleReply refused = c.Receive().reply;
    EXPECT_EQ(refused.code(), kResourceExhausted);
    EXPECT_EQ(refused.detail().reason(), "TOO_MANY_CONNECTIONS");
    EXPECT_EQ(refused.detail().limit(), "at most 2");
    EXPECT_TRUE(c.Receive().ended);
  }
  EXPECT_TRUE(WaitUntil([&] {
    HandleConnection d(daemon.options().runtime_dir);
    return d.Receive().reply.code() == 0;
  }));
}

// Runs in a child that has become user `uid`: connects to `path`, and exits with the code in the first reply's first
// field (handles.sock), or 0 if the connection is served and 1 if it is closed at once (control.sock).
int ConnectAs(uint32_t uid, const std::string& path, int type) {
  const pid_t child = ::fork();
  if (child == 0) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    if (::setgroups(0, nullptr) != 0 || ::setresgid(uid, uid, uid) != 0 || ::setresuid(uid, uid, uid) != 0)
      ::_exit(100);
    const int fd = ::socket(AF_UNIX, type, 0);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) ::_exit(101);
    // An HTTP/2 server speaks first, too: its SETTINGS frame.
    char buffer[256];
    const ssize_t got = ::recv(fd, buffer, sizeof(buffer), 0);
    if (type == SOCK_STREAM) ::_exit(got > 0 ? 0 : 1);
    ::_exit(got > 1 && buffer[0] == 0x08 ? buffer[1] : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

TEST(AccessTest, UsersThatAreNotAllowedAreRefusedOnBothSockets) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become other users";
  TestDaemon daemon([](DaemonOptions* options) {
    options->socket.mode = 0666;
    options->allowed_uids = {4321};
  });
  const std::string handles = daemon.options().runtime_dir + "/handles.sock";
  const std::string control = daemon.options().runtime_dir + "/control.sock";
  EXPECT_EQ(ConnectAs(4321, handles, SOCK_SEQPACKET), 0);
  EXPECT_EQ(ConnectAs(4322, handles, SOCK_SEQPACKET), kPermissionDenied);
  EXPECT_EQ(ConnectAs(4321, control, SOCK_STREAM), 0);
  EXPECT_EQ(ConnectAs(4322, control, SOCK_STREAM), 1);
}

TEST(AccessTest, SocketModeKeepsOthersOut) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become other users";
  TestDaemon daemon;  // 0660
  EXPECT_EQ(ConnectAs(4321, daemon.options().runtime_dir + "/handles.sock", SOCK_SEQPACKET), 101);
  EXPECT_EQ(ConnectAs(4321, daemon.options().runtime_dir + "/control.sock", SOCK_STREAM), 101);
}

}  // namespace
}  // namespace dak::daemon
