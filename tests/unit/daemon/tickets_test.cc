#include "daemon/session/tickets.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "allocator/base/error_detail.h"

namespace dak::daemon {
namespace {

std::vector<HandleGrant> HandlesOf(uint64_t segment_id) {
  std::vector<HandleGrant> handles;
  handles.push_back({.segment_id = segment_id});
  handles[0].fd.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return handles;
}

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(TicketBookTest, TicketIsGoodOnce) {
  TicketBook book;
  const std::string ticket = book.Add(HandlesOf(1));
  const auto first = book.Redeem({ticket});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ((*first)[0].segment_id, 1u);
  const auto second = book.Redeem({ticket});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(DetailOf(second.status()).field, "tickets[0]");
  EXPECT_EQ(DetailOf(second.status()).reason, "BAD_TICKET");
}

TEST(TicketBookTest, OneBadTicketSpendsNone) {
  TicketBook book;
  const std::string a = book.Add(HandlesOf(1));
  const std::string b = book.Add(HandlesOf(2));
  const auto refused = book.Redeem({a, b, std::string(16, 'x')});
  EXPECT_EQ(DetailOf(refused.status()).field, "tickets[2]");
  EXPECT_EQ(book.size(), 2u);
  EXPECT_TRUE(book.Redeem({a, b}).ok());
}

TEST(TicketBookTest, SameTicketTwiceInOneRequestIsRefused) {
  TicketBook book;
  const std::string ticket = book.Add(HandlesOf(1));
  EXPECT_EQ(DetailOf(book.Redeem({ticket, ticket}).status()).field, "tickets[1]");
  EXPECT_EQ(book.size(), 1u);
}

TEST(TicketBookTest, RevokingASegmentClosesItsDescriptorsOnly) {
  TicketBook book;
  std::vector<HandleGrant> one = HandlesOf(1);
  std::vector<HandleGrant> two = HandlesOf(2);
  const int fd_one = one[0].fd.get();
  const int fd_two = two[0].fd.get();
  const std::string revoked = book.Add(std::move(one));
  const std::string kept = book.Add(std::move(two));
  book.RevokeSegment(1);
  EXPECT_FALSE(IsOpen(fd_one));
  EXPECT_TRUE(IsOpen(fd_two));
  EXPECT_FALSE(book.Redeem({revoked}).ok());
  EXPECT_TRUE(book.Redeem({kept}).ok());
}

}  // namespace
}  // namespace dak::daemon
