#include "daemon/session/secret.h"

#include <gtest/gtest.h>

#include <set>

namespace dak::daemon {
namespace {

TEST(SecretTest, RandomSecretsDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(Secret::Random().ToString());
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_EQ(seen.begin()->size(), kSecretBytes);
}

TEST(SecretTest, EqualOnlyIfEveryByteIs) {
  const std::string secret = Secret::Random().ToString();
  EXPECT_TRUE(SecretsEqual(secret, secret));
  for (size_t i = 0; i < kSecretBytes; ++i) {
    std::string other = secret;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_FALSE(SecretsEqual(secret, other)) << "byte " << i;
  }
  EXPECT_FALSE(SecretsEqual(secret, secret.substr(1)));
  EXPECT_FALSE(SecretsEqual(secret, ""));
}

TEST(SecretMapTest, FindsOnlyTheWholeSecret) {
  SecretMap<int> map;
  const Secret secret = Secret::Random();
  ASSERT_TRUE(map.Insert(secret, 7));
  ASSERT_NE(map.Find(secret.bytes()), nullptr);
  EXPECT_EQ(*map.Find(secret.bytes()), 7);
  for (size_t i = 0; i < kSecretBytes; ++i) {
    std::string other = secret.ToString();
    other[i] = static_cast<char>(other[i] ^ 0x80);
    EXPECT_EQ(map.Find(other), nullptr) << "byte " << i;
    map.Erase(other);
  }
  EXPECT_EQ(map.Find(""), nullptr);
  std::string longer = secret.ToString();
  longer.push_back('x');
  EXPECT_EQ(map.Find(longer), nullptr);
  EXPECT_EQ(map.size(), 1u);
  map.Erase(secret.bytes());
  EXPECT_EQ(map.Find(secret.bytes()), nullptr);
}

TEST(SecretMapTest, RefusesASecretWithTheSameKey) {
  SecretMap<int> map;
  const Secret secret = Secret::Random();
  std::string twin = secret.ToString();
  twin[15] = static_cast<char>(twin[15] ^ 1);
  ASSERT_TRUE(map.Insert(secret, 1));
  EXPECT_FALSE(map.Insert(Secret::FromBytes(twin), 2));
  EXPECT_EQ(*map.Find(secret.bytes()), 1);
  EXPECT_EQ(map.Find(twin), nullptr);
}

}  // namespace
}  // namespace dak::daemon
