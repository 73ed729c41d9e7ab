#include "allocator/ordered_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace dak::internal {
namespace {

// Small nodes, so that a few entries make a deep tree.
using Index = OrderedIndex<uint64_t, int, 4, 4>;

template <typename AnyIndex>
void ExpectSound(const AnyIndex& index) {
  const char* fault = index.FindFault();
  EXPECT_EQ(fault, nullptr) << fault;
}

void ExpectEqual(const Index& index, const std::map<uint64_t, int>& model) {
  ExpectSound(index);
  ASSERT_EQ(index.size(), model.size());
  auto at = index.First();
  for (const auto& [key, value] : model) {
    ASSERT_FALSE(at.at_end());
    EXPECT_EQ(at.key(), key);
    EXPECT_EQ(at.value(), value);
    at = at.Next();
  }
  EXPECT_TRUE(at.at_end());
  auto back = index.Last();
  for (auto entry = model.rbegin(); entry != model.rend(); ++entry, back = back.Previous()) {
    ASSERT_FALSE(back.at_end());
    EXPECT_EQ(back.key(), entry->first);
  }
  EXPECT_TRUE(back.at_end());
}

TEST(OrderedIndexTest, IsEmptyAtFirst) {
  Index index;
  EXPECT_TRUE(index.empty());
  EXPECT_TRUE(index.First().at_end());
  EXPECT_TRUE(index.Last().at_end());
  EXPECT_TRUE(index.Find(3).at_end());
  EXPECT_TRUE(index.LowerBound(0).at_end());
  ExpectSound(index);
}

TEST(OrderedIndexTest, GrowsAndShrinksInEitherDirection) {
  for (bool up : {true, false}) {
    for (bool erase_up : {true, false}) {
      Index index;
      std::map<uint64_t, int> model;
      for (uint64_t i = 0; i < 500; ++i) {
        const uint64_t key = up ? i : 499 - i;
        index.Insert(key, static_cast<int>(key));
        model[key] = static_cast<int>(key);
        ExpectSound(index);
      }
      ExpectEqual(index, model);
      for (uint64_t i = 0; i < 500; ++i) {
        const uint64_t key = erase_up ? i : 499 - i;
        index.Erase(key);
        model.erase(key);
        ExpectSound(index);
      }
      ExpectEqual(index, model);
    }
  }
}

TEST(OrderedIndexTest, FindsTheFirstNotBelow) {
  Index index;
  for (uint64_t key = 10; key <= 1'000; key += 10) index.Insert(key, 1);
  for (uint64_t key = 0; key <= 1'000; ++key) {
    const auto found = index.LowerBound(key);
    ASSERT_FALSE(found.at_end());
    EXPECT_EQ(found.key(), key == 0 ? 10 : (key + 9) / 10 * 10);
    EXPECT_EQ(index.Find(key).at_end(), key == 0 || key % 10 != 0);
  }
  EXPECT_TRUE(index.LowerBound(1'001).at_end());
}

TEST(OrderedIndexTest, AgreesWithAMapUnderRandomChanges) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    Index index;
    std::map<uint64_t, int> model;
    for (int step = 0; step < 4'000 && !::testing::Test::HasFailure(); ++step) {
      const uint64_t key = random() % 600;
      const bool grows = step / 500 % 2 == 0;
      const auto below = index.LowerBound(key).at_end() ? index.Last() : index.LowerBound(key).Previous();
      if (model.contains(key)) {
        if (grows && random() % 4 != 0) continue;
        if (random() % 2 == 0) {
          index.Erase(key);
        } else {
          index.EraseAt(index.Find(key));
        }
        model.erase(key);
      } else if (grows || random() % 4 == 0) {
        if (below.at_end() || random() % 2 == 0) {
          index.Insert(key, step);
        } else {
          index.InsertNear(below, key, step);
        }
        model[key] = step;
      }
      ExpectSound(index);
      ASSERT_EQ(index.size(), model.size());
      ASSERT_EQ(index.Find(key).at_end(), !model.contains(key));
      if (step % 50 == 0) ExpectEqual(index, model);
    }
    ExpectEqual(index, model);
  }
}

// The tag may turn either way after a key has become a separator.
TEST(OrderedIndexTest, KeepsItsOrderWhenTagsChange) {
  OrderedIndex<uint32_t, int, 4, 4, /*kTagBits=*/1> index;
  std::map<uint32_t, uint32_t> tags;
  std::mt19937_64 random(7);
  for (int step = 0; step < 20'000 && !::testing::Test::HasFailure(); ++step) {
    const auto number = static_cast<uint32_t>(random() % 300);
    const auto found = tags.find(number);
    const auto tag = static_cast<uint32_t>(random() % 2);
    if (found == tags.end()) {
      index.Insert(number * 2 + tag, 0);
      tags[number] = tag;
    } else if (random() % 3 == 0) {
      index.Erase(number * 2 + found->second);
      tags.erase(found);
    } else {
      index.Find(number * 2 + found->second).Retag(number * 2 + tag);
      found->second = tag;
    }
    ExpectSound(index);
  }
  for (const auto& [number, tag] : tags) EXPECT_FALSE(index.Find(number * 2 + tag).at_end());
}

// Every capacity in use has its own way of searching a node.
template <typename AnyIndex>
void ExpectSearchesWork() {
  AnyIndex index;
  for (int i = 1; i <= 3'000; ++i) index.Insert(static_cast<uint64_t>(i) * 2, {});
  ExpectSound(index);
  for (uint64_t i = 1; i <= 3'000; ++i) {
    EXPECT_FALSE(index.Find(i * 2).at_end());
    EXPECT_TRUE(index.Find(i * 2 - 1).at_end());
    EXPECT_EQ(index.LowerBound(i * 2 - 1).key(), i * 2);
  }
}

TEST(OrderedIndexTest, SearchesNodesOfEveryCapacity) {
  ExpectSearchesWork<OrderedIndex<uint64_t, char, 4, 8>>();
  ExpectSearchesWork<OrderedIndex<uint64_t, char, 8, 16>>();
  ExpectSearchesWork<OrderedIndex<uint64_t, char, 16, 32>>();
  ExpectSearchesWork<OrderedIndex<uint64_t, char, 32, 64>>();
  ExpectSearchesWork<OrderedIndex<uint64_t, char, 64, 4>>();
  ExpectSearchesWork<OrderedIndex<uint64_t, char, 128, 128>>();
}

}  // namespace
}  // namespace dak::internal
