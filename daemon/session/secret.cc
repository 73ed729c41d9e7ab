#include "daemon/session/secret.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

namespace dak::daemon {

Secret Secret::Random() {
  Secret secret;
  size_t done = 0;
  while (done < kSecretBytes) {
    const ssize_t got = ::getrandom(secret.bytes_.data() + done, kSecretBytes - done, 0);
    if (got < 0 && errno == EINTR) continue;
    // A predictable secret would be worse than no daemon.
    if (got <= 0) std::abort();
    done += static_cast<size_t>(got);
  }
  return secret;
}

bool SecretsEqual(absl::string_view a, absl::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference =
        static_cast<unsigned char>(difference | (static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i])));
  }
  return difference == 0;
}

}  // namespace dak::daemon
