#include "tests/unit/device/peer_process.h"

#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <utility>

#include "tests/unit/device/device_case.h"

namespace dak {
namespace {

constexpr char kPeerFlag[] = "--peer";
constexpr int kPeerSocket = 3;
constexpr uint32_t kMaxData = 4096;

enum class Op : uint32_t { kHello, kMap, kUnmap, kRead, kWrite, kEncode, kMapPage, kReadPage, kWritePage };

struct Request {
  Op op = Op::kHello;
  Access access = Access::kReadOnly;
  HandleKind kind = HandleKind::kMemfd;
  Tier tier = Tier::kHbm;
  uint64_t bytes = 0;
  uint64_t offset = 0;  // or the address, or the word
  uint32_t length = 0;
  TensorMapSpec spec;
  std::byte data[kMaxData];
};

struct Reply {
  int code = 0;
  char message[512] = {};
  uint64_t word = 0;
  std::byte data[kMaxData];
};

void Fail(const char* what) {
  std::cerr << "peer: " << what << ": " << std::strerror(errno) << std::endl;
  std::abort();
}

template <typename T>
void Send(int socket, const T& message, int fd) {
  iovec data{const_cast<T*>(&message), sizeof(message)};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(item), &fd, sizeof(fd));
  }
  if (::sendmsg(socket, &header, MSG_NOSIGNAL) != sizeof(message)) Fail("sendmsg");
}

// False at the end of the connection.
template <typename T>
bool Receive(int socket, T* message, UniqueFd* fd) {
  iovec data{message, sizeof(*message)};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  if (got == 0) return false;
  if (got != sizeof(*message)) Fail("recvmsg");
  if (cmsghdr* item = CMSG_FIRSTHDR(&header)) {
    int received = -1;
    std::memcpy(&received, CMSG_DATA(item), sizeof(received));
    fd->reset(received);
  }
  return true;
}

Reply Call(int socket, const Request& request, int fd = -1) {
  Send(socket, request, fd);
  Reply reply;
  UniqueFd unused;
  if (!Receive(socket, &reply, &unused)) Fail("the peer died");
  return reply;
}

absl::Status StatusOf(const Reply& reply) {
  return absl::Status(static_cast<absl::StatusCode>(reply.code), reply.message);
}

// The peer's side.
class Peer {
 public:
  explicit Peer(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  Reply Handle(const Request& request, UniqueFd fd) {
    Reply reply;
    const absl::Status status = Do(request, std::move(fd), &reply);
    reply.code = static_cast<int>(status.code());
    std::strncpy(reply.message, std::string(status.message()).c_str(), sizeof(reply.message) - 1);
    return reply;
  }

 private:
  absl::Status Do(const Request& request, UniqueFd fd, Reply* reply) {
    switch (request.op) {
      case Op::kHello:
        return absl::OkStatus();
      case Op::kMap: {
        auto mapping = device_->Map({std::move(fd), request.kind, request.tier, request.bytes}, request.access);
        if (mapping.ok()) mapping_ = *std::move(mapping);
        return mapping.status();
      }
      case Op::kUnmap:
        mapping_.reset();
        return absl::OkStatus();
      case Op::kRead:
        return device_->Download(*mapping_, request.offset, {reply->data, request.length});
      case Op::kWrite:
        return device_->Upload(*mapping_, request.offset, {request.data, request.length});
      case Op::kEncode: {
        auto map = device_->EncodeTensorMap(request.spec, request.offset);
        if (map.ok()) std::memcpy(reply->data, map->bytes.data(), map->bytes.size());
        return map.status();
      }
      case Op::kMapPage: {
        auto page = device_->MapSharedPage(std::move(fd), request.bytes, request.access);
        if (page.ok()) page_ = *std::move(page);
        return page.status();
      }
      case Op::kReadPage:
        reply->word = *static_cast<volatile uint64_t*>(page_->host_pointer());
        return absl::OkStatus();
      case Op::kWritePage:
        *static_cast<volatile uint64_t*>(page_->host_pointer()) = request.offset;
        return absl::OkStatus();
    }
    return absl::UnimplementedError("op");
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Mapping> mapping_;
  std::unique_ptr<SharedPage> page_;
};

}  // namespace

PeerProcess::PeerProcess(const std::string& case_name) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) Fail("socketpair");
  socket_.reset(pair[0]);
  UniqueFd theirs(pair[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), kPeerSocket);
  std::string program = "/proc/self/exe";
  std::string flag = kPeerFlag;
  std::string name = case_name;
  char* const argv[] = {program.data(), flag.data(), name.data(), nullptr};
  const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    errno = error;
    Fail("posix_spawn");
  }
  theirs.reset();  // or a peer that ends at once would leave this process waiting for its own end of the pair
  Call(socket_.get(), Request{});
}

PeerProcess::~PeerProcess() {
  socket_.reset();
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

absl::Status PeerProcess::Map(ExportedHandle handle, Access access) {
  Request request;
  request.op = Op::kMap;
  request.access = access;
  request.kind = handle.kind;
  request.tier = handle.tier;
  request.bytes = handle.bytes;
  return StatusOf(Call(socket_.get(), request, handle.fd.get()));
}

absl::Status PeerProcess::Unmap() {
  Request request;
  request.op = Op::kUnmap;
  return StatusOf(Call(socket_.get(), request));
}

absl::StatusOr<std::vector<std::byte>> PeerProcess::Read(uint64_t offset_bytes, uint32_t length) {
  Request request;
  request.op = Op::kRead;
  request.offset = offset_bytes;
  request.length = length;
  const Reply reply = Call(socket_.get(), request);
  if (reply.code != 0) return StatusOf(reply);
  return std::vector<std::byte>(reply.data, reply.data + length);
}

absl::Status PeerProcess::Write(uint64_t offset_bytes, const std::vector<std::byte>& bytes) {
  Request request;
  request.op = Op::kWrite;
  request.offset = offset_bytes;
  request.length = static_cast<uint32_t>(bytes.size());
  std::memcpy(request.data, bytes.data(), bytes.size());
  return StatusOf(Call(socket_.get(), request));
}

absl::StatusOr<TensorMap> PeerProcess::Encode(const TensorMapSpec& spec, uint64_t address) {
  Request request;
  request.op = Op::kEncode;
  request.spec = spec;
  request.offset = address;
  const Reply reply = Call(socket_.get(), request);
  if (reply.code != 0) return StatusOf(reply);
  TensorMap map;
  std::memcpy(map.bytes.data(), reply.data, map.bytes.size());
  return map;
}

absl::Status PeerProcess::MapPage(UniqueFd fd, uint64_t bytes, Access access) {
  Request request;
  request.op = Op::kMapPage;
  request.access = access;
  request.bytes = bytes;
  return StatusOf(Call(socket_.get(), request, fd.get()));
}

absl::StatusOr<uint64_t> PeerProcess::ReadPageWord() {
  Request request;
  request.op = Op::kReadPage;
  const Reply reply = Call(socket_.get(), request);
  if (reply.code != 0) return StatusOf(reply);
  return reply.word;
}

absl::Status PeerProcess::WritePageWord(uint64_t word) {
  Request request;
  request.op = Op::kWritePage;
  request.offset = word;
  return StatusOf(Call(socket_.get(), request));
}

void PeerProcess::Kill() {
  ::kill(pid_, SIGKILL);
  ::waitpid(std::exchange(pid_, -1), nullptr, 0);
}

bool RunAsPeer(int argc, char** argv, int* exit_code) {
  if (argc != 3 || std::strcmp(argv[1], kPeerFlag) != 0) return false;
  *exit_code = 1;
  absl::StatusOr<std::unique_ptr<Device>> device = FindDeviceCase(argv[2]).open();
  if (!device.ok()) {
    std::cerr << "peer: " << device.status() << std::endl;
    return true;
  }
  Peer peer(*std::move(device));
  Request request;
  UniqueFd fd;
  while (Receive(kPeerSocket, &request, &fd)) Send(kPeerSocket, peer.Handle(request, std::move(fd)), -1);
  *exit_code = 0;
  return true;
}

}  // namespace dak
