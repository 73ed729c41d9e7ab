#include "daemon/profile/cache.h"

#include <fcntl.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "allocator/base/unique_fd.h"

namespace dak::daemon {
namespace {

constexpr std::streamsize kMostBytes = 1 << 20;

// What is wrong with the file doesn't matter: it is measured again.
class Silence final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int /*line*/, int /*column*/, const std::string& /*message*/) override {}
};

absl::Status SystemError(const std::string& what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::Status WriteWhole(int fd, const std::string& text, const std::string& path) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t written = ::write(fd, text.data() + at, text.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return SystemError(path);
    at += static_cast<size_t>(written);
  }
  if (::fsync(fd) != 0) return SystemError(path);
  return absl::OkStatus();
}

absl::Status Foreign(const std::string& path, const char* what, const std::string& held, const std::string& wanted) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": it is of ", what, " '", held, "', not '", wanted, "'"));
}

}  // namespace

std::string ProfilePath(const std::string& cache_dir, const DeviceDescription& device) {
  std::string key;
  for (const char c : device.uuid.empty() ? device.name : device.uuid) {
    key += absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '-';
  }
  return absl::StrCat(cache_dir, "/profile-", key, ".textproto");
}

absl::StatusOr<config::MeasuredProfile> LoadMeasured(const std::string& path, const DeviceDescription& device) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return absl::NotFoundError(absl::StrCat("there is no ", path));
  const std::streamsize bytes = file.tellg();
  if (bytes < 0 || bytes > kMostBytes) return absl::InvalidArgumentError(absl::StrCat(path, " is no measured profile"));
  file.seekg(0);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  google::protobuf::TextFormat::Parser parser;
  parser.AllowUnknownField(true);  // another format's: told apart below
  Silence silence;
  parser.RecordErrorsTo(&silence);
  config::MeasuredProfile measured;
  // Without its last fields a file was cut short.
  if (!parser.ParseFromString(text, &measured) || !measured.has_profile()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no measured profile"));
  }
  if (measured.format() != kProfileFormat) {
    return Foreign(path, "format", absl::StrCat(measured.format()), absl::StrCat(kProfileFormat));
  }
  if (measured.device_uuid() != device.uuid) return Foreign(path, "device", measured.device_uuid(), device.uuid);
  if (measured.device_name() != device.name) return Foreign(path, "device", measured.device_name(), device.name);
  if (measured.driver() != device.driver) return Foreign(path, "driver", measured.driver(), device.driver);
  if (!measured.has_cxl_numa_node()) return absl::InvalidArgumentError(absl::StrCat(path, " is no measured profile"));
  if (measured.cxl_numa_node() != device.cxl_numa_node) {
    return Foreign(path, "cxl node", absl::StrCat(measured.cxl_numa_node()), absl::StrCat(device.cxl_numa_node));
  }
  return measured;
}

absl::Status StoreMeasured(const std::string& path, const DeviceDescription& device, config::MeasuredProfile measured) {
  measured.set_format(kProfileFormat);
  measured.set_device_uuid(device.uuid);
  measured.set_device_name(device.name);
  measured.set_driver(device.driver);
  measured.set_cxl_numa_node(device.cxl_numa_node);
  const std::string directory = path.substr(0, path.rfind('/'));
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) return SystemError(directory);
  std::string text;
  if (!google::protobuf::TextFormat::PrintToString(measured, &text)) return absl::InternalError("can't print");
  std::string draft = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(draft.data(), O_CLOEXEC));
  if (!fd.valid()) return SystemError(draft);
  absl::Status status = WriteWhole(fd.get(), text, draft);
  if (status.ok() && ::fchmod(fd.get(), 0644) != 0) status = SystemError(draft);
  if (status.ok() && std::rename(draft.c_str(), path.c_str()) != 0) status = SystemError(path);
  if (!status.ok()) ::unlink(draft.c_str());
  return status;
}

}  // namespace dak::daemon
