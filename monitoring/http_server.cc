#include "monitoring/http_server.h"

#include <CivetServer.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/base/unique_fd.h"

namespace dak::monitoring {
namespace {

// Few on purpose: one scraper and one person with curl. A slow client gives its thread back after the timeout.
constexpr char kThreads[] = "2";
constexpr char kRequestTimeoutMs[] = "5000";

absl::Status BadAddress(const std::string& address) {
  return InvalidField("metrics address", absl::StrCat("\"", absl::CHexEscape(address), "\" is no host:port"),
                      "as in 127.0.0.1:9465, [::1]:9465 or localhost:0, port at most 65535", "MALFORMED");
}

bool IsHost(const std::string& host) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    return std::all_of(host.begin() + 1, host.end() - 1,
                       [](char c) { return absl::ascii_isxdigit(c) || c == ':' || c == '.'; });
  }
  // What the HTTP library takes as separators (',', '+', 's' after the port, ...) must not get through.
  return !host.empty() && host.size() <= 255 &&
         std::all_of(host.begin(), host.end(), [](char c) { return absl::ascii_isalnum(c) || c == '.' || c == '-'; });
}

int AnswerHealth(mg_connection* connection) {
  const mg_request_info* request = mg_get_request_info(connection);
  if (request == nullptr || request->local_uri == nullptr || std::strcmp(request->local_uri, "/healthz") != 0) return 0;
  mg_printf(connection,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
  return 200;
}

const CivetCallbacks& Callbacks() {
  static const CivetCallbacks callbacks = [] {
    CivetCallbacks c;
    c.begin_request = AnswerHealth;
    return c;
  }();
  return callbacks;
}

void ConnectOnce(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) return;
  const UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  // Whether it gets through doesn't matter: the loop tries again, and the server stops by itself in the end.
  if (fd.valid()) (void)::connect(fd.get(), found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return BadAddress(address);
  HostPort parsed;
  parsed.host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  uint32_t number = 0;
  const bool digits = !port.empty() && port.size() <= 5 && std::all_of(port.begin(), port.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(port, &number) || number > 65535 || !IsHost(parsed.host)) return BadAddress(address);
  parsed.port = static_cast<uint16_t>(number);
  return parsed;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address) {
  DAK_ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
  const std::vector<std::string> options = {"listening_ports",    address,          "num_threads", kThreads,
                                            "request_timeout_ms", kRequestTimeoutMs};
  std::unique_ptr<prometheus::Exposer> exposer;
  // The library reports a failed bind by an exception, and only so.
  try {
    exposer = std::make_unique<prometheus::Exposer>(options, &Callbacks());
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("can't serve metrics at ", address,
                                               ": is the port taken, or the host not this machine's? (", error.what(),
                                               ")"));
  }
  const std::vector<int> ports = exposer->GetListeningPorts();
  if (ports.size() != 1) return absl::UnavailableError(absl::StrCat("can't serve metrics at ", address));
  const std::string bound = absl::StrCat(parsed.host, ":", ports.front());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(exposer), bound));
}

// NOTE: the server's accept thread looks at its stop flag when poll() returns, every 2 s or with a connection (civetweb
// 1.15). Connecting while it stops saves those 2 s at every shutdown.
HttpServer::~HttpServer() {
  absl::Notification stopped;
  std::thread waker([this, &stopped] {
    do {
      ConnectOnce(address_);
    } while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(5)));
  });
  exposer_.reset();
  stopped.Notify();
  waker.join();
}

void HttpServer::Expose(const std::weak_ptr<prometheus::Collectable>& collectable) {
  exposer_->RegisterCollectable(collectable);
}

}  // namespace dak::monitoring
