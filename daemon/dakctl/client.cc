#include "daemon/dakctl/client.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/unique_fd.h"
#include "daemon/dakctl/text.h"
#include "daemon/dakctl/users.h"

namespace dak::dakctl {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path);  // with the zero at its end
constexpr char kWhereHint[] = "--runtime-dir or $DAK_RUNTIME_DIR names another place";

// gRPC takes the address for a URI.
std::string UnixTarget(const std::string& path) {
  std::string target = "unix:";
  for (char c : path) {
    if (absl::ascii_isalnum(c) || strchr("/._-~", c) != nullptr) {
      target += c;
    } else {
      absl::StrAppendFormat(&target, "%%%02X", static_cast<uint8_t>(c));
    }
  }
  return target;
}

ErrorDetail DetailFrom(const grpc::Status& status) {
  v1::RpcStatus rpc;
  ErrorDetail detail;
  if (!rpc.ParseFromString(status.error_details())) return detail;
  for (const v1::AnyDetail& any : rpc.details()) {
    v1::ErrorDetail message;
    if (!any.type_url().ends_with("/dak.v1.ErrorDetail") || !message.ParseFromString(any.value())) continue;
    detail = {message.field(), message.reason(), message.limit(), message.shortfall_bytes()};
  }
  return detail;
}

std::string WhoMayOpen(const std::string& socket) {
  struct stat info {};
  if (::stat(socket.c_str(), &info) != 0) return "";
  return absl::StrFormat(" (it belongs to %s:%s, mode %04o)", UserName(info.st_uid), GroupName(info.st_gid),
                         info.st_mode & 07777);
}

}  // namespace

std::string DiagnoseSocket(const std::string& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string shown = Printable(socket);
  if (socket.size() >= kMaxSocketPath) {
    return absl::StrCat("the socket's path ", shown, " has ", socket.size(), " characters; Linux takes at most ",
                        kMaxSocketPath - 1, "; choose a shorter --runtime-dir");
  }
  std::memcpy(address.sun_path, socket.data(), socket.size());
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return absl::StrCat("dakd at ", shown, " took the connection and closed it; its configuration may not allow user ",
                        UserName(::geteuid()), ", or it is shutting down: see its log");
  }
  switch (errno) {
    case ENOENT:
      return absl::StrCat("no daemon: there is no socket ", shown, "; is dakd running? (systemctl status dakd; ",
                          kWhereHint, ")");
    case ECONNREFUSED:
      return absl::StrCat("no daemon: nobody listens at ", shown,
                          ", which a dakd that has ended left behind; start it again (systemctl start dakd)");
    case EACCES:
    case EPERM:
      return absl::StrCat("user ", UserName(::geteuid()), " may not open ", shown, WhoMayOpen(socket),
                          "; join the socket's group, or use sudo");
    default:
      return absl::StrCat("can't connect to ", shown, ": ", std::strerror(errno), " (", kWhereHint, ")");
  }
}

Client::Client(const std::string& runtime_dir, double timeout_s)
    : socket_(absl::StrCat(runtime_dir, "/control.sock")), timeout_s_(timeout_s) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A daemon that restarts is found again: channels of one address otherwise share their failure and its back-off.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  channel_ = grpc::CreateCustomChannel(UnixTarget(socket_), grpc::InsecureChannelCredentials(), arguments);
  node_ = v1::NodeService::NewStub(channel_);
  sessions_ = v1::SessionService::NewStub(channel_);
  tensors_ = v1::TensorService::NewStub(channel_);
  migrations_ = v1::MigrationService::NewStub(channel_);
}

absl::Status Client::Explain(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  // gRPC only says that it made no channel.
  if (socket_.size() >= kMaxSocketPath) return absl::UnavailableError(DiagnoseSocket(socket_));
  std::string message = Printable(status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      // Where the daemon itself said so, its words are better than a guess.
      if (status.error_details().empty()) message = DiagnoseSocket(socket_);
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      message = absl::StrFormat("dakd at %s gave no answer within %g s (--timeout raises that)", Printable(socket_),
                                timeout_s_);
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      message = absl::StrCat("this dakd doesn't know the call; is it older than this dakctl? (", message, ")");
      break;
    default:
      break;
  }
  return WithDetail(absl::Status(static_cast<absl::StatusCode>(status.error_code()), message), DetailFrom(status));
}

}  // namespace dak::dakctl
