#include "daemon/planner/greedy.h"

#include <algorithm>
#include <cmath>

namespace dak::planner::internal {
namespace {

// What a session takes before HBM is shared, and what it could still give: its share of one list of pieces.
struct SessionPieces {
  double taken_bytes = 0;
  size_t first = 0;
  size_t end = 0;
};

SessionPieces TakeOwnNeed(const Problem& problem, const SessionTerms& session, const TierOrder& order,
                          std::vector<Piece>& pieces, Threshold& threshold) {
  SessionPieces own;
  own.first = pieces.size();
  for (size_t i = session.first_item; i < session.end_item; ++i) {
    const Item& item = problem.items[i];
    own.taken_bytes += item.min_ratio * item.stored_bytes;
    const Segments segments = SegmentsOf(order, item);
    for (size_t s = 0; s < segments.count; ++s) {
      const Segment& segment = segments.segment[s];
      const double bytes = (segment.end - segment.begin) * item.stored_bytes;
      if (segment.slope < 0) {
        own.taken_bytes += bytes;
      } else {
        pieces.push_back({segment.slope, bytes});
      }
    }
  }
  own.end = pieces.size();
  threshold = {.slope = 0, .fraction = 0};
  if (session.needed_bytes > own.taken_bytes) {
    const absl::Span<Piece> mine = absl::MakeSpan(pieces).subspan(own.first);
    threshold = SelectThreshold(mine, session.needed_bytes - own.taken_bytes);
    own.taken_bytes = session.needed_bytes;
  }
  return own;
}

// Raises all thresholds to a common one, until what the sessions take together is enough.
void TakeSharedNeed(const Problem& problem, const std::vector<SessionPieces>& sessions, std::vector<Piece>& pieces,
                    std::vector<Threshold>& thresholds) {
  double missing = problem.shared_needed_bytes;
  for (const SessionPieces& session : sessions) missing -= session.taken_bytes;
  if (missing <= 0) return;
  std::vector<Piece> left;
  for (size_t s = 0; s < sessions.size(); ++s) {
    for (size_t i = sessions[s].first; i < sessions[s].end; ++i) {
      Piece piece = pieces[i];
      if (piece.slope < thresholds[s].slope) continue;
      if (piece.slope == thresholds[s].slope) piece.bytes *= 1 - thresholds[s].fraction;
      left.push_back(piece);
    }
  }
  const Threshold common = SelectThreshold(absl::MakeSpan(left), missing);
  for (Threshold& own : thresholds) {
    if (own.slope < common.slope) {
      own = common;
    } else if (own.slope == common.slope) {
      own.fraction += (1 - own.fraction) * common.fraction;
    }
  }
}

void AddTotals(const Problem& problem, const std::vector<TierOrder>& orders, GreedyPlan& plan) {
  for (size_t s = 0; s < problem.sessions.size(); ++s) {
    const SessionTerms& session = problem.sessions[s];
    for (size_t i = session.first_item; i < session.end_item; ++i) {
      const Item& item = problem.items[i];
      const double ratio = RatioAt(SegmentsOf(orders[s], item), item, plan.thresholds[s]);
      const Spread spread = SpreadAt(orders[s], item, ratio);
      plan.weighted_s += session.weight * spread.seconds;
      for (size_t k = 0; k < problem.tiers; ++k) plan.used_bytes[k] += spread.ratio[k] * item.stored_bytes;
    }
  }
}

}  // namespace

double RatioAt(const Segments& segments, const Item& item, const Threshold& threshold) {
  double ratio = item.min_ratio;
  for (size_t s = 0; s < segments.count; ++s) {
    const Segment& segment = segments.segment[s];
    if (segment.slope > threshold.slope) break;
    if (segment.slope < threshold.slope) {
      ratio = segment.end;
    } else {
      ratio += threshold.fraction * (segment.end - segment.begin);
    }
  }
  return ratio;
}

Threshold SelectThreshold(absl::Span<Piece> pieces, double needed_bytes) {
  Threshold last;
  size_t begin = 0;
  size_t end = pieces.size();
  double missing = needed_bytes;
  while (begin < end) {
    const size_t middle = begin + (end - begin) / 2;
    std::nth_element(pieces.begin() + begin, pieces.begin() + middle, pieces.begin() + end,
                     [](const Piece& a, const Piece& b) { return a.slope < b.slope; });
    const double slope = pieces[middle].slope;
    const size_t ties_begin = std::partition(pieces.begin() + begin, pieces.begin() + middle,
                                             [slope](const Piece& piece) { return piece.slope < slope; }) -
                              pieces.begin();
    const size_t ties_end = std::partition(pieces.begin() + middle, pieces.begin() + end,
                                           [slope](const Piece& piece) { return piece.slope == slope; }) -
                            pieces.begin();
    double below = 0;
    for (size_t i = begin; i < ties_begin; ++i) below += pieces[i].bytes;
    if (missing <= below) {
      end = ties_begin;
      last = {.slope = slope, .fraction = 0};
      continue;
    }
    double ties = 0;
    for (size_t i = ties_begin; i < ties_end; ++i) ties += pieces[i].bytes;
    if (missing <= below + ties) return {.slope = slope, .fraction = std::min(1.0, (missing - below) / ties)};
    missing -= below + ties;
    begin = ties_end;
    last = {.slope = slope, .fraction = 1};
  }
  return last;
}

GreedyPlan SolveAtPrices(const Problem& problem, const PerTier& prices, bool with_totals) {
  GreedyPlan plan;
  plan.prices = prices;
  plan.thresholds.resize(problem.sessions.size());
  std::vector<TierOrder> orders(problem.sessions.size());
  std::vector<SessionPieces> own(problem.sessions.size());
  std::vector<Piece> pieces;
  pieces.reserve(3 * problem.items.size());
  for (size_t s = 0; s < problem.sessions.size(); ++s) {
    orders[s] = OrderTiers(problem, problem.sessions[s], prices);
    own[s] = TakeOwnNeed(problem, problem.sessions[s], orders[s], pieces, plan.thresholds[s]);
  }
  TakeSharedNeed(problem, own, pieces, plan.thresholds);
  if (with_totals) AddTotals(problem, orders, plan);
  return plan;
}

}  // namespace dak::planner::internal
