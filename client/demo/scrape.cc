#include "client/demo/scrape.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "allocator/base/unique_fd.h"

namespace dak::demo {
namespace {

constexpr timeval kPatience = {.tv_sec = 5, .tv_usec = 0};

UniqueFd ConnectTo(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in target{};
  target.sin_family = AF_INET;
  uint16_t port = 0;
  if (colon == std::string::npos) return UniqueFd();
  std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
  target.sin_port = htons(port);
  if (inet_pton(AF_INET, address.substr(0, colon).c_str(), &target.sin_addr) != 1) return UniqueFd();
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&target), sizeof(target)) != 0) return UniqueFd();
  return fd;
}

}  // namespace

std::optional<std::string> HttpGet(const std::string& address, const std::string& path) {
  const UniqueFd fd = ConnectTo(address);
  if (!fd.valid()) return std::nullopt;
  // Version 1.0: the answer ends with the connection, and isn't chunked.
  const std::string request = "GET " + path + " HTTP/1.0\r\nHost: " + address + "\r\n\r\n";
  if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    return std::nullopt;
  }
  std::string answer;
  char bytes[16384];
  for (ssize_t count; (count = recv(fd.get(), bytes, sizeof(bytes), 0)) > 0;) {
    answer.append(bytes, static_cast<size_t>(count));
  }
  const size_t body = answer.find("\r\n\r\n");
  if (answer.substr(0, answer.find("\r\n")).find(" 200 ") == std::string::npos || body == std::string::npos) {
    return std::nullopt;
  }
  return answer.substr(body + 4);
}

std::optional<double> FindSeries(const std::string& text, const std::string& name,
                                 const std::vector<std::string>& labels) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t name_end = line.find_first_of("{ ");
    if (line.substr(0, name_end) != name) continue;
    const bool all = std::all_of(labels.begin(), labels.end(),
                                 [&](const std::string& label) { return line.find(label) != std::string::npos; });
    if (!all) continue;
    std::istringstream value(line.substr(line.rfind(' ') + 1));
    double number = 0;
    if (value >> number) return number;
  }
  return std::nullopt;
}

}  // namespace dak::demo
