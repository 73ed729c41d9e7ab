// The word by which two launches share a window, and a model of the workers that use it: each step is taken by whoever
// chance picks, on a state that it saw earlier. The kernels' side runs on a GPU alone (tests/gpu/gemm_window_test.cc).
#include "kernels/link_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace dak::kernels {
namespace {

TEST(LinkStateTest, TheNextLaunchHasWhatEndedWorkersHaveGivenUp) {
  uint64_t word = LinkState(0).NextWord(4, false);
  const uint32_t next = LinkState(word).NextLaunch();
  const auto shares = [&](uint32_t boxes) {
    uint32_t sum = 0;
    for (uint32_t worker = 0; worker < 3; ++worker) sum += LinkState(word).ShareOf(next, worker, 3, boxes);
    return sum;
  };
  EXPECT_EQ(shares(34), 0u);
  word += LinkState::End(1, 7);  // of 9
  EXPECT_EQ(shares(34), 2u);
  EXPECT_EQ(LinkState(word).ShareOf(next, 2, 3, 34), 0u) << "the first have more";
  word += LinkState::Return(7);
  EXPECT_EQ(shares(34), 9u);
  EXPECT_EQ(shares(3), 0u) << "a window of fewer boxes than workers is handed over whole";
  word += LinkState::End(0, 0) + LinkState::End(2, 0);
  EXPECT_FALSE(LinkState(word).IsComplete());
  EXPECT_EQ(shares(34), 9u + 9 + 8);
  word += LinkState::End(3, 8);
  EXPECT_FALSE(LinkState(word).IsComplete());
  word += LinkState::Return(8);
  EXPECT_TRUE(LinkState(word).IsComplete());
  EXPECT_EQ(shares(34), 34u);
  EXPECT_EQ(shares(2), 2u);
}

TEST(LinkStateTest, HandedOverWholeTheOthersOfTheLaunchHaveWhatIsGivenUp) {
  uint64_t word = LinkState(0).NextWord(4, true);
  const uint32_t launch = LinkState(word).launch();
  EXPECT_EQ(LinkState(word).ShareOf(launch, 1, 4, 34), 9u);
  EXPECT_EQ(LinkState(word).ShareOf(launch, 3, 4, 34), 8u);
  word += LinkState::End(0, 0) + LinkState::End(2, 0);
  EXPECT_EQ(LinkState(word).ShareOf(launch, 1, 4, 33), 17u);
  EXPECT_EQ(LinkState(word).ShareOf(launch, 3, 4, 33), 16u);
  EXPECT_EQ(LinkState(word).ShareOf(launch, 1, 4, 1), 1u);
  EXPECT_EQ(LinkState(word).ShareOf(launch, 3, 4, 1), 0u);
  EXPECT_EQ(LinkState(word).ShareOf(LinkState(word).NextLaunch(), 0, 3, 34), 0u);
  word += LinkState::End(1, 0) + LinkState::End(3, 0);
  EXPECT_TRUE(LinkState(word).IsComplete());
  EXPECT_EQ(LinkState(word).ShareOf(LinkState(word).NextLaunch(), 0, 3, 34), 12u);
}

TEST(LinkStateTest, NumbersGoRoundAndTheFirstStateIsComplete) {
  EXPECT_TRUE(LinkState(0).IsComplete());
  uint64_t word = 0;
  for (int i = 0; i < 40'000; ++i) {
    const uint32_t next = LinkState(word).NextLaunch();
    ASSERT_NE(next, LinkState(word).launch());
    ASSERT_EQ(LinkState(LinkState::CompleteBefore(next)).NextLaunch(), next);
    ASSERT_TRUE(LinkState(LinkState::CompleteBefore(next)).IsComplete());
    word = LinkState(word).NextWord(32, i % 2 == 0);
    ASSERT_EQ(LinkState(word).launch(), next);
    ASSERT_EQ(LinkState(word).workers(), 32u);
    ASSERT_FALSE(LinkState(word).IsComplete());
    for (uint32_t worker = 0; worker < 32; ++worker) word += LinkState::End(worker, 24);
    ASSERT_FALSE(LinkState(word).IsComplete());
    for (uint32_t worker = 0; worker < 32; ++worker) word += LinkState::Return(24);
    ASSERT_TRUE(LinkState(word).IsComplete());
  }
}

struct Worker {
  uint32_t launch = 0;  // by its own account; 0: hasn't started
  uint64_t seen = 0;
  uint32_t boxes = 1;  // of the window that it knows of
  uint32_t share = 0;
  uint32_t left = 0;
  uint32_t inflight = 0;
  uint32_t draining = 0;  // that it has said
  bool said = false;
  bool left_link = false;
};

struct Launch {
  bool whole = false;
  bool took_link = false;
  std::vector<Worker> workers;
  bool HasEnded() const {
    return std::all_of(workers.begin(), workers.end(), [](const Worker& worker) { return worker.left_link; });
  }
};

class Model {
 public:
  // Windows of `least` to `most` boxes, which the workers hear of when they like.
  Model(uint64_t seed, uint32_t least, uint32_t most) : random_(seed), least_(least), most_(most), launches_(6) {
    for (Launch& launch : launches_) {
      launch.whole = Below(4) == 0;
      launch.workers.resize(1 + Below(Below(3) == 0 ? 32 : 6));
      for (Worker& worker : launch.workers) worker.left = Below(40);
    }
  }

  // Takes steps until every launch has ended, or nothing happens for long.
  void Run() {
    for (uint32_t idle = 0; !launches_.back().HasEnded() && idle < 1'000'000; ++idle) {
      if (launches_[first_].HasEnded() && first_ + 1 < launches_.size()) ++first_;
      const size_t which = first_ + (first_ + 1 < launches_.size() ? Below(2) : 0);
      if (Step(which, launches_[which])) idle = 0;
      uint32_t inflight = 0;
      for (const Launch& launch : launches_) {
        for (const Worker& worker : launch.workers) inflight += worker.inflight;
      }
      peak_ = std::max(peak_, inflight);
    }
  }

  bool AllEnded() const { return launches_.back().HasEnded(); }
  uint32_t peak() const { return peak_; }
  size_t completions() const { return completions_; }
  size_t launches() const { return launches_.size(); }
  uint64_t early_reads() const { return early_reads_; }

 private:
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }

  bool Step(size_t index, Launch& launch) {
    if (!launch.took_link) Take(index, launch);
    Worker& worker = launch.workers[Below(static_cast<uint32_t>(launch.workers.size()))];
    if (worker.launch == 0) return Start(index, launch);
    switch (Below(4)) {
      case 0:
        return Look(launch, worker);
      case 1:
        if (worker.left == 0 || worker.inflight >= worker.share) return false;
        if (LinkState(word_).launch() != worker.launch && !LinkState(word_).IsComplete()) ++early_reads_;
        --worker.left;
        ++worker.inflight;
        return true;
      case 2:
        if (worker.inflight == 0) return false;
        --worker.inflight;
        return true;
      default:
        return worker.left == 0 && !worker.left_link && Leave(launch, worker);
    }
  }

  // CTAs start in order, once the launch before lets them.
  bool Start(size_t index, Launch& launch) {
    if (index > 0 && !launches_[index - 1].took_link) return false;
    const auto next =
        std::find_if(launch.workers.begin(), launch.workers.end(), [](const Worker& w) { return w.launch == 0; });
    next->seen = word_;
    next->launch = LinkState(word_).NextLaunch();
    next->boxes = least_;
    ++arrived_;
    return true;
  }

  void Take(size_t index, Launch& launch) {
    if (arrived_ != launch.workers.size() || launch.workers.back().launch == 0) return;
    if (index > 0 && !launches_[index - 1].HasEnded()) return;
    arrived_ = 0;
    launch.took_link = true;
    word_ = LinkState(word_).NextWord(static_cast<uint32_t>(launch.workers.size()), launch.whole);
  }

  // Those of a launch that takes the link over whole begin when the one before has nothing in flight.
  bool MayBegin(const Launch& launch, const Worker& worker) const {
    return !launch.whole || LinkState(word_).launch() == worker.launch || LinkState(word_).IsComplete();
  }

  // A meter's round: acts on what the round before has loaded.
  bool Look(const Launch& launch, Worker& worker) {
    if (!MayBegin(launch, worker)) return false;
    const auto number = static_cast<uint32_t>(&worker - launch.workers.data());
    const auto workers = static_cast<uint32_t>(launch.workers.size());
    const uint32_t before = worker.share;
    worker.share = LinkState(worker.seen).ShareOf(worker.launch, number, workers, worker.boxes);
    const bool new_word = worker.seen != word_;
    worker.seen = word_;
    worker.boxes = least_ + Below(most_ - least_ + 1);
    return worker.share != before || new_word;
  }

  // A round at the end.
  bool Leave(const Launch& launch, Worker& worker) {
    const bool is_own = LinkState(word_).launch() == worker.launch;
    if (!worker.said && (!is_own || (launch.whole && worker.inflight > 0))) return false;
    const auto number = static_cast<uint32_t>(&worker - launch.workers.data());
    if (worker.inflight > 0 && worker.said && worker.inflight == worker.draining) return false;
    word_ +=
        worker.said ? LinkState::Return(worker.draining - worker.inflight) : LinkState::End(number, worker.inflight);
    worker.said = true;
    worker.draining = worker.inflight;
    worker.left_link = worker.inflight == 0;
    if (worker.left_link && LinkState(word_).IsComplete()) ++completions_;
    return true;
  }

  std::mt19937_64 random_;
  uint32_t least_;
  uint32_t most_;
  std::vector<Launch> launches_;
  size_t first_ = 0;  // that hasn't ended; the one after it may be under way too
  uint64_t word_ = 0;
  size_t arrived_ = 0;
  size_t completions_ = 0;
  uint32_t peak_ = 0;
  uint64_t early_reads_ = 0;
};

void ExpectKept(uint32_t least, uint32_t most) {
  uint64_t early_reads = 0;
  for (uint64_t seed = 0; seed < 15; ++seed) {
    Model model(seed, least, most);
    model.Run();
    ASSERT_TRUE(model.AllEnded()) << "windows of " << least << " to " << most << ", seed " << seed;
    ASSERT_LE(model.peak(), most) << "windows of " << least << " to " << most << ", seed " << seed;
    ASSERT_EQ(model.completions(), model.launches());
    early_reads += model.early_reads();
  }
  if (least >= kMaxRemoteCtas) {
    EXPECT_GT(early_reads, 0u);
  }
}

TEST(LinkStateTest, LaunchesNeverHoldMoreThanTheWindowTogetherAndAllEnd) {
  for (const uint32_t boxes : {1u, 2u, 3u, 5u, 8u, 31u, 32u, 33u, 100u}) ExpectKept(boxes, boxes);
}

TEST(LinkStateTest, NorDoTheyWhereSomeHearOfANewWindowLater) {
  ExpectKept(1, 2);
  ExpectKept(1, 12);
  ExpectKept(3, 5);
  ExpectKept(30, 70);
}

}  // namespace
}  // namespace dak::kernels
