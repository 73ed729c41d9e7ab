// The ledger under many threads: at every moment each pool's bytes are free, a session's or published.
//
// DAK_FUZZ_STEPS raises the number of steps of each thread (20,000 by default).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "allocator/ledger.h"

namespace dak {
namespace {

constexpr int kThreads = 8;
constexpr int kSessions = 4;  // two threads each
constexpr std::array<uint64_t, kTierCount> kCapacity = {40 * kGranuleBytes, 90 * kGranuleBytes, 0};
constexpr uint64_t kQuotaBytes = 14 * kGranuleBytes;

int Steps() {
  int steps = 20'000;
  const char* text = std::getenv("DAK_FUZZ_STEPS");
  if (text != nullptr && !absl::SimpleAtoi(text, &steps)) ADD_FAILURE() << "DAK_FUZZ_STEPS isn't a number: " << text;
  return steps;
}

class Worker {
 public:
  Worker(Ledger& ledger, uint64_t session_id, uint64_t seed)
      : ledger_(ledger), session_id_(session_id), random_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) Step();
  }
  std::array<uint64_t, kTierCount> held_bytes{};
  std::array<uint64_t, kTierCount> published_bytes{};
  uint64_t refusals = 0;

 private:
  void Step() {
    const Tier tier = random_() % 2 == 0 ? Tier::kHbm : Tier::kHost;
    const size_t index = TierIndex(tier);
    switch (random_() % 6) {
      case 0:
      case 1:
        Reserve(tier, (1 + random_() % 5) * kGranuleBytes);
        break;
      case 2:
      case 3:
        if (held_bytes[index] > 0) Release(tier, kGranuleBytes);
        break;
      case 4:
        if (held_bytes[index] > 0 && published_bytes[index] < 2 * kGranuleBytes) {
          EXPECT_TRUE(ledger_.Publish(session_id_, tier, kGranuleBytes).ok());
          held_bytes[index] -= kGranuleBytes;
          published_bytes[index] += kGranuleBytes;
        }
        break;
      default:
        if (published_bytes[index] > 0) {
          EXPECT_TRUE(ledger_.ReleasePublished(tier, kGranuleBytes).ok());
          published_bytes[index] -= kGranuleBytes;
        }
    }
  }
  void Reserve(Tier tier, uint64_t bytes) {
    absl::StatusOr<Reservation> reservation = ledger_.Reserve(session_id_, tier, bytes);
    if (reservation.ok() && random_() % 3 != 0) {
      reservation->Commit();
      held_bytes[TierIndex(tier)] += bytes;
      return;
    }
    refusals += reservation.ok() ? 0 : 1;
    if (reservation.ok()) *reservation = Reservation();
  }
  void Release(Tier tier, uint64_t bytes) {
    EXPECT_TRUE(ledger_.Release(session_id_, tier, bytes).ok());
    held_bytes[TierIndex(tier)] -= bytes;
  }

  Ledger& ledger_;
  uint64_t session_id_;
  std::mt19937_64 random_;
};

// One look at the pools while the threads work.
void Observe(const Ledger& ledger) {
  const std::vector<Ledger::PoolUsage> pools = ledger.Pools();
  for (const Ledger::PoolUsage& pool : pools) {
    EXPECT_EQ(pool.capacity_bytes, kCapacity[TierIndex(pool.tier)]);
    EXPECT_LE(pool.session_bytes + pool.published_bytes, pool.capacity_bytes);
    EXPECT_EQ(pool.free_bytes() + pool.session_bytes + pool.published_bytes, pool.capacity_bytes);
  }
  EXPECT_EQ(ledger.CheckInvariants(), absl::OkStatus());
}

TEST(LedgerThreadsTest, ConservesEveryByte) {
  Ledger ledger(kCapacity);
  for (uint64_t id = 1; id <= kSessions; ++id) {
    ASSERT_TRUE(ledger.OpenSession(id, {kQuotaBytes, kNoLimit, kNoLimit}).ok());
  }
  std::vector<Worker> workers;
  for (int i = 0; i < kThreads; ++i) {
    workers.emplace_back(ledger, static_cast<uint64_t>(i % kSessions + 1), static_cast<uint64_t>(i) + 1);
  }
  std::atomic<bool> done = false;
  std::thread observer([&] {
    while (!done) Observe(ledger);
  });
  std::vector<std::thread> threads;
  const int steps = Steps();
  for (Worker& worker : workers) threads.emplace_back([&worker, steps] { worker.Run(steps); });
  for (std::thread& thread : threads) thread.join();
  done = true;
  observer.join();

  std::array<uint64_t, kTierCount> held{}, published{};
  std::array<std::array<uint64_t, kTierCount>, kSessions + 1> of_session{};
  uint64_t refusals = 0;
  for (int i = 0; i < kThreads; ++i) {
    refusals += workers[i].refusals;
    for (size_t t = 0; t < kTierCount; ++t) {
      held[t] += workers[i].held_bytes[t];
      published[t] += workers[i].published_bytes[t];
      of_session[i % kSessions + 1][t] += workers[i].held_bytes[t];
    }
  }
  EXPECT_GT(refusals, 0u);  // the limits were met
  for (const Ledger::PoolUsage& pool : ledger.Pools()) {
    EXPECT_EQ(pool.session_bytes, held[TierIndex(pool.tier)]);
    EXPECT_EQ(pool.published_bytes, published[TierIndex(pool.tier)]);
  }
  for (uint64_t id = 1; id <= kSessions; ++id) {
    EXPECT_LE(ledger.GetQuota(id, Tier::kHbm)->used_bytes, kQuotaBytes);
    EXPECT_EQ(*ledger.CloseSession(id), of_session[id]);
  }
  for (const Ledger::PoolUsage& pool : ledger.Pools()) EXPECT_EQ(pool.session_bytes, 0u);
}

// Sessions come and go while others reserve: closing returns what was held, and nobody's bytes are lost.
TEST(LedgerThreadsTest, SessionsOpenAndCloseBesideOthers) {
  Ledger ledger(kCapacity);
  std::vector<std::thread> threads;
  const int rounds = Steps() / 10;
  for (uint64_t id = 1; id <= kThreads; ++id) {
    threads.emplace_back([&ledger, id, rounds] {
      std::mt19937_64 random(id);
      for (int round = 0; round < rounds; ++round) {
        ASSERT_TRUE(ledger.OpenSession(id, {kNoLimit, kNoLimit, kNoLimit}).ok());
        uint64_t held_bytes = 0;
        for (int i = 0; i < 4; ++i) {
          absl::StatusOr<Reservation> reservation = ledger.Reserve(id, Tier::kHost, (random() % 9) * kGranuleBytes);
          if (!reservation.ok()) continue;
          held_bytes += reservation->bytes();
          reservation->Commit();
        }
        EXPECT_EQ(ledger.GetQuota(id, Tier::kHost)->used_bytes, held_bytes);
        EXPECT_EQ((*ledger.CloseSession(id))[TierIndex(Tier::kHost)], held_bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.CheckInvariants(), absl::OkStatus());
  for (const Ledger::PoolUsage& pool : ledger.Pools()) EXPECT_EQ(pool.free_bytes(), pool.capacity_bytes);
}

}  // namespace
}  // namespace dak
