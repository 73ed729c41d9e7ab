// GET /metrics and GET /healthz over HTTP.
//
// /healthz answers 200 "ok" as long as the server's threads run: it says that the process lives, not that its figures
// are good. Thread safety: none; one owner. The destructor ends all connections and joins the server's threads.
// Errors: INVALID_ARGUMENT if the address is no host:port, UNAVAILABLE if it can't be bound.
#ifndef DAK_MONITORING_HTTP_SERVER_H_
#define DAK_MONITORING_HTTP_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/collectable.h"
#include "prometheus/exposer.h"

namespace dak::monitoring {

// "127.0.0.1:9465", "[::1]:9465" or "localhost:9465", taken apart; the host keeps its brackets.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

class HttpServer {
 public:
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Adds to what /metrics shows; the server keeps no ownership.
  void Expose(const std::weak_ptr<prometheus::Collectable>& collectable);
  const std::string& address() const { return address_; }

 private:
  HttpServer(std::unique_ptr<prometheus::Exposer> exposer, std::string address)
      : exposer_(std::move(exposer)), address_(std::move(address)) {}

  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_;
};

}  // namespace dak::monitoring

#endif  // DAK_MONITORING_HTTP_SERVER_H_
