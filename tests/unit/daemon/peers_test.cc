#include "daemon/ipc/peers.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <string>

namespace dak::daemon {
namespace {

UniqueFd Open() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(PeerPolicyTest, EmptyListLetsEverybodyIn) {
  const PeerPolicy policy({}, 1000);
  EXPECT_TRUE(policy.Allows({.uid = 4242}));
}

TEST(PeerPolicyTest, ListLetsInItsUsersRootAndTheDaemonsOwn) {
  const PeerPolicy policy({7, 8}, 1000);
  for (const uint32_t uid : {0u, 7u, 8u, 1000u}) EXPECT_TRUE(policy.Allows({.uid = uid})) << uid;
  for (const uint32_t uid : {1u, 9u, 4242u}) EXPECT_FALSE(policy.Allows({.uid = uid})) << uid;
}

TEST(PeersTest, CredentialsAreThoseOfTheOtherEnd) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  UniqueFd a(pair[0]), b(pair[1]);
  const auto peer = ReadPeer(a.get());
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->uid, ::geteuid());
  EXPECT_FALSE(ReadPeer(Open().get()).ok());
}

TEST(PeerTableTest, NumbersAscendSoThatAClosedOneIsNotTheNext) {
  PeerTable table(600, 700);
  std::set<int> numbers;
  for (uint32_t i = 0; i < 100; ++i) {
    const auto fd = table.Enter(Open(), {.uid = i});
    ASSERT_TRUE(fd.ok());
    EXPECT_GE(fd->get(), 600);
    EXPECT_LE(fd->get(), 700);
    EXPECT_TRUE(numbers.insert(fd->get()).second) << "number " << fd->get() << " came back too early";
    const auto found = table.Find("fd:" + std::to_string(fd->get()));
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->uid, i);
  }
}

TEST(PeerTableTest, AFullRangeIsAnError) {
  PeerTable table(600, 602);
  std::vector<UniqueFd> held;
  for (int i = 0; i < 3; ++i) {
    auto fd = table.Enter(Open(), {});
    ASSERT_TRUE(fd.ok());
    held.push_back(*std::move(fd));
  }
  EXPECT_EQ(table.Enter(Open(), {}).status().code(), absl::StatusCode::kResourceExhausted);
  held.erase(held.begin() + 1);
  EXPECT_TRUE(table.Enter(Open(), {}).ok());
}

TEST(PeerTableTest, UnknownNamesHaveNoCredentials) {
  PeerTable table(600, 700);
  for (const char* name : {"", "fd:", "fd:600", "fd:x", "ipv4:127.0.0.1:5", "unix:"}) {
    EXPECT_EQ(table.Find(name).status().code(), absl::StatusCode::kUnauthenticated) << name;
  }
}

}  // namespace
}  // namespace dak::daemon
