// Secrets that prove a right: session tokens, connection tickets, tickets for descriptors.
//
// A secret is 16 bytes from the kernel's random generator. A SecretMap finds its entry by the first 8 bytes and then
// compares all 16 in constant time, so that how long a look-up takes says nothing about the half that isn't the key.
//
// Thread safety: RandomSecret and SecretsEqual may be called from any thread; a SecretMap's owner locks.
#ifndef DAK_DAEMON_SESSION_SECRET_H_
#define DAK_DAEMON_SESSION_SECRET_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace dak::daemon {

inline constexpr size_t kSecretBytes = 16;

class Secret {
 public:
  // Fresh random bytes. Aborts if the kernel has none to give, which Linux doesn't do once it is up.
  static Secret Random();
  // `bytes` has kSecretBytes bytes.
  static Secret FromBytes(absl::string_view bytes) {
    Secret secret;
    std::memcpy(secret.bytes_.data(), bytes.data(), kSecretBytes);
    return secret;
  }

  absl::string_view bytes() const { return {bytes_.data(), bytes_.size()}; }
  std::string ToString() const { return std::string(bytes_.data(), bytes_.size()); }

 private:
  std::array<char, kSecretBytes> bytes_{};
};

// False at once if the lengths differ; else in a time that doesn't depend on the bytes.
bool SecretsEqual(absl::string_view a, absl::string_view b);

template <typename Value>
class SecretMap {
 public:
  // False, and nothing changed, if another secret starts with the same 8 bytes.
  bool Insert(const Secret& secret, Value value) {
    return entries_.try_emplace(KeyOf(secret.bytes()), secret, std::move(value)).second;
  }
  // Null if there is no such secret. The pointer is good until the next change.
  Value* Find(absl::string_view secret) {
    if (secret.size() != kSecretBytes) return nullptr;
    auto it = entries_.find(KeyOf(secret));
    if (it == entries_.end() || !SecretsEqual(it->second.first.bytes(), secret)) return nullptr;
    return &it->second.second;
  }
  void Erase(absl::string_view secret) {
    if (Find(secret) != nullptr) entries_.erase(KeyOf(secret));
  }
  template <typename Predicate>
  void EraseIf(Predicate predicate) {
    for (auto it = entries_.begin(); it != entries_.end();) {
      if (predicate(it->second.second)) {
        entries_.erase(it++);
      } else {
        ++it;
      }
    }
  }
  void Clear() { entries_.clear(); }
  size_t size() const { return entries_.size(); }

 private:
  static uint64_t KeyOf(absl::string_view secret) {
    uint64_t key = 0;
    std::memcpy(&key, secret.data(), sizeof(key));
    return key;
  }
  absl::flat_hash_map<uint64_t, std::pair<Secret, Value>> entries_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SECRET_H_
