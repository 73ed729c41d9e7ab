#include "daemon/session/tickets.h"

#include <iterator>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"

namespace dak::daemon {

std::string TicketBook::Add(std::vector<HandleGrant> handles) {
  Secret secret = Secret::Random();
  while (tickets_.Find(secret.bytes()) != nullptr) secret = Secret::Random();
  tickets_.Insert(secret, std::move(handles));
  return secret.ToString();
}

absl::StatusOr<std::vector<HandleGrant>> TicketBook::Redeem(absl::Span<const std::string> tickets) {
  absl::flat_hash_set<absl::string_view> seen;
  for (size_t i = 0; i < tickets.size(); ++i) {
    if (tickets_.Find(tickets[i]) == nullptr || !seen.insert(tickets[i]).second) {
      const std::string field = absl::StrCat("tickets[", i, "]");
      return WithDetail(absl::UnauthenticatedError(absl::StrCat(field, ": unknown, spent or another session's ticket")),
                        {.field = field, .reason = "BAD_TICKET"});
    }
  }
  std::vector<HandleGrant> handles;
  for (const std::string& ticket : tickets) {
    std::vector<HandleGrant>& held = *tickets_.Find(ticket);
    handles.insert(handles.end(), std::make_move_iterator(held.begin()), std::make_move_iterator(held.end()));
    tickets_.Erase(ticket);
  }
  return handles;
}

void TicketBook::RevokeSegment(uint64_t segment_id) {
  tickets_.EraseIf([segment_id](const std::vector<HandleGrant>& handles) {
    return !handles.empty() && handles[0].purpose == HandleGrant::Purpose::kSegment &&
           handles[0].segment_id == segment_id;
  });
}

}  // namespace dak::daemon
