// The fake daemon's handles.sock.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tests/unit/client/fake_daemon.h"

namespace dak::testing {
namespace {

constexpr size_t kMaxPacketBytes = 64 * 1024;

void SendPacket(int socket, const std::string& bytes, const std::vector<int>& fds) {
  iovec vector{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  sendmsg(socket, &message, MSG_NOSIGNAL);
}

}  // namespace

void FakeDaemon::ServeHandles() {
  listener_ = UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = runtime_dir_ + "/handles.sock";
  std::memcpy(address.sun_path, path.c_str(), path.size());
  if (bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener_.get(), 16) != 0) {
    std::abort();
  }
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  handles_thread_ = std::thread([this] {
    for (;;) {
      std::vector<pollfd> polled = {{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                                    {.fd = listener_.get(), .events = POLLIN, .revents = 0}};
      for (const Connection& connection : connections_) {
        polled.push_back({.fd = connection.fd.get(), .events = POLLIN, .revents = 0});
      }
      poll(polled.data(), polled.size(), -1);
      std::lock_guard lock(mutex_);
      if (stopping_) break;
      if (polled[0].revents != 0) {
        uint64_t count;
        if (read(wake_.get(), &count, sizeof(count)) < 0) continue;
        const auto held = std::exchange(held_, {});
        for (Connection& connection : connections_) {
          for (const auto& [fd, bytes] : held) {
            if (fd == connection.fd.get()) Reply(connection, bytes);
          }
        }
      }
      for (size_t i = polled.size(); i-- > 2;) {
        if (polled[i].revents != 0 && !Answer(connections_[i - 2])) connections_.erase(connections_.begin() + i - 2);
      }
      if (polled[1].revents != 0) Greet(UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
    }
    connections_.clear();
  });
}

void FakeDaemon::Greet(UniqueFd fd) {
  v1::HandleReply greeting;
  greeting.set_api_version(1);
  greeting.set_daemon_version("0.0.1-fake");
  greeting.set_connection_ticket("connection");
  if (faults_.edit_greeting) faults_.edit_greeting(&greeting);
  const std::string bytes = faults_.raw_greeting.empty() ? greeting.SerializeAsString() : faults_.raw_greeting;
  if (!faults_.no_greeting) SendPacket(fd.get(), bytes, {});
  connections_.push_back({.fd = std::move(fd), .ticket = greeting.connection_ticket()});
}

bool FakeDaemon::Answer(Connection& connection) {
  std::string bytes(kMaxPacketBytes, '\0');
  const ssize_t received = recv(connection.fd.get(), bytes.data(), bytes.size(), 0);
  if (received <= 0) return false;
  bytes.resize(static_cast<size_t>(received));
  if (faults_.mute_handles) {
    held_.emplace_back(connection.fd.get(), bytes);
  } else {
    Reply(connection, bytes);
  }
  return true;
}

void FakeDaemon::Reply(const Connection& connection, const std::string& bytes) {
  v1::HandleRequest request;
  v1::HandleReply reply;
  std::vector<UniqueFd> sent;
  if (!request.ParseFromString(bytes)) std::abort();
  if (faults_.redeem_code.has_value()) {
    reply.set_code(*faults_.redeem_code);
    reply.set_message("refused on order");
    reply.mutable_detail()->set_reason("BAD_TICKET");
  } else {
    for (const std::string& ticket : request.tickets()) {
      const auto [first, last] = tickets_.equal_range(ticket);
      for (auto it = first; it != last; ++it) {
        *reply.add_handles() = it->second.handle;
        const bool segment = it->second.handle.purpose() == v1::Handle::PURPOSE_SEGMENT;
        if (segment && faults_.bad_segment_in >= 0 && faults_.bad_segment_in-- == 0) {
          it->second.fd = UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC));
        }
        sent.push_back(std::move(it->second.fd));
      }
      tickets_.erase(first, last);
    }
  }
  std::vector<int> fds;
  for (const UniqueFd& fd : sent) fds.push_back(fd.get());
  SendPacket(connection.fd.get(), reply.SerializeAsString(), fds);
}

void FakeDaemon::Deliver(v1::AllocateTensorsResponse* response) {
  v1::HandleReply delivery;
  delivery.set_delivery(true);
  std::vector<UniqueFd> sent;
  std::vector<int> fds;
  for (v1::SegmentGrant& grant : *response->mutable_segments()) {
    auto ticket = tickets_.extract(grant.ticket());
    *delivery.add_handles() = ticket.mapped().handle;
    sent.push_back(std::move(ticket.mapped().fd));
    fds.push_back(sent.back().get());
    grant.clear_ticket();
    grant.set_delivered(true);
  }
  SendPacket(connections_.front().fd.get(), delivery.SerializeAsString(), fds);
}

void FakeDaemon::Unmute() {
  {
    std::lock_guard lock(mutex_);
    faults_.mute_handles = false;
  }
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof(one)) != sizeof(one)) std::abort();
}

void FakeDaemon::Stop() {
  if (!handles_thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof(one)) != sizeof(one)) std::abort();
  handles_thread_.join();
  listener_.reset();
  server_->Shutdown(std::chrono::system_clock::now());
  unlink((runtime_dir_ + "/handles.sock").c_str());
}

}  // namespace dak::testing
