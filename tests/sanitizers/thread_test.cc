// Proves that the tsan build finds races, and that it understands Abseil's locks, of which the distribution's build is
// not instrumented (cmake/sanitizers/tsan_absl.cc).
#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace dak {
namespace {

constexpr int kRounds = 2000;
constexpr int kTsanExitCode = 66;

template <typename Body>
void RunInTwoThreads(Body body) {
  std::thread first(body, 0);
  std::thread second(body, 1);
  first.join();
  second.join();
}

TEST(ThreadSanitizerDeathTest, FindsARace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        int counter = 0;
        RunInTwoThreads([&](int) {
          for (int i = 0; i < kRounds; ++i) ++counter;
        });
        std::exit(0);
      },
      testing::ExitedWithCode(kTsanExitCode), "data race");
}

TEST(ThreadSanitizerDeathTest, FindsARaceBesideAMutex) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        absl::Mutex mutexes[2];
        int counter = 0;
        RunInTwoThreads([&](int thread) {
          for (int i = 0; i < kRounds; ++i) {
            absl::MutexLock lock(&mutexes[thread]);
            ++counter;
          }
        });
        std::exit(0);
      },
      testing::ExitedWithCode(kTsanExitCode), "data race");
}

TEST(ThreadSanitizerTest, UnderstandsMutex) {
  absl::Mutex mutex;
  int counter = 0;
  RunInTwoThreads([&](int thread) {
    for (int i = 0; i < kRounds; ++i) {
      if (thread == 0) {
        absl::MutexLock lock(&mutex);
        ++counter;
      } else {
        while (!mutex.TryLock()) std::this_thread::yield();
        ++counter;
        mutex.Unlock();
      }
      absl::ReaderMutexLock lock(&mutex);
      EXPECT_GE(counter, 1);
    }
  });
  EXPECT_EQ(counter, 2 * kRounds);
}

TEST(ThreadSanitizerTest, UnderstandsConditions) {
  absl::Mutex mutex;
  int turn = 0;
  RunInTwoThreads([&](int thread) {
    const auto mine = [&] { return turn % 2 == thread; };
    for (int i = 0; i < kRounds; ++i) {
      if (i % 2 == 0) {
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(&mine));
        ++turn;
      } else {
        mutex.LockWhen(absl::Condition(&mine));
        ++turn;
        mutex.Unlock();
      }
    }
  });
  EXPECT_EQ(turn, 2 * kRounds);
}

TEST(ThreadSanitizerTest, UnderstandsConditionVariables) {
  absl::Mutex mutex;
  absl::CondVar changed;
  int turn = 0;
  RunInTwoThreads([&](int thread) {
    for (int i = 0; i < kRounds; ++i) {
      absl::MutexLock lock(&mutex);
      while (turn % 2 != thread) changed.WaitWithTimeout(&mutex, absl::Seconds(100));
      ++turn;
      changed.Signal();
    }
  });
  EXPECT_EQ(turn, 2 * kRounds);
}

TEST(ThreadSanitizerTest, UnderstandsNotifications) {
  for (int i = 0; i < 100; ++i) {
    absl::Notification ready;
    int value = 0;
    RunInTwoThreads([&](int thread) {
      if (thread == 0) {
        value = 1;
        ready.Notify();
      } else if (i % 2 == 0) {
        ready.WaitForNotification();
        EXPECT_EQ(value, 1);
      } else {
        while (!ready.HasBeenNotified()) std::this_thread::yield();
        EXPECT_EQ(value, 1);
      }
    });
  }
}

}  // namespace
}  // namespace dak
