// A second process for device tests: this program again, told over a socket what to do with descriptors it is sent.
//
// Every call waits for the peer's reply, so there is nothing to sleep for. The peer ends when its socket does.
// Thread safety: none.
#ifndef DAK_TESTS_UNIT_DEVICE_PEER_PROCESS_H_
#define DAK_TESTS_UNIT_DEVICE_PEER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"

namespace dak {

class PeerProcess {
 public:
  // Starts /proc/self/exe as a peer that opens the device of this name (device_case.h).
  explicit PeerProcess(const std::string& case_name);
  ~PeerProcess();
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  absl::Status Map(ExportedHandle handle, Access access);
  absl::Status Unmap();
  absl::StatusOr<std::vector<std::byte>> Read(uint64_t offset_bytes, uint32_t length);
  absl::Status Write(uint64_t offset_bytes, const std::vector<std::byte>& bytes);
  absl::StatusOr<TensorMap> Encode(const TensorMapSpec& spec, uint64_t address);
  absl::Status MapPage(UniqueFd fd, uint64_t bytes, Access access);
  // The first word of the page, by the CPU.
  absl::StatusOr<uint64_t> ReadPageWord();
  absl::Status WritePageWord(uint64_t word);

  // SIGKILL, and waits until the process is gone.
  void Kill();

 private:
  UniqueFd socket_;
  pid_t pid_ = -1;
};

// True if this program was started as a peer; then *exit_code is what main returns.
bool RunAsPeer(int argc, char** argv, int* exit_code);

}  // namespace dak

#endif  // DAK_TESTS_UNIT_DEVICE_PEER_PROCESS_H_
