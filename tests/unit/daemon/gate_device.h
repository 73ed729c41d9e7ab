// A device whose next call of one kind waits until the test lets it go: for what happens while the driver works.
#ifndef DAK_TESTS_UNIT_DAEMON_GATE_DEVICE_H_
#define DAK_TESTS_UNIT_DAEMON_GATE_DEVICE_H_

#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "allocator/device/device.h"

namespace dak::daemon {

// The gate in front of CreateSegment, Export, Copy and CreateSharedPage. Thread-safe.
class Gate {
 public:
  enum class Call { kCreateSegment, kExport, kCopy, kCreateSharedPage };

  // The next call of this kind will wait.
  void Shut(Call call) {
    absl::MutexLock lock(&mutex_);
    shut_ = true;
    call_ = call;
  }
  void Open() {
    absl::MutexLock lock(&mutex_);
    shut_ = false;
  }
  // Waits until a call waits.
  void AwaitCaller() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&waiting_));
  }
  void Pass(Call call) {
    absl::MutexLock lock(&mutex_);
    if (!shut_ || call_ != call || waiting_) return;
    waiting_ = true;
    mutex_.Await(absl::Condition(
        +[](bool* shut) { return !*shut; }, &shut_));
    waiting_ = false;
  }

 private:
  absl::Mutex mutex_;
  bool shut_ = false;
  bool waiting_ = false;
  Call call_ = Call::kCreateSegment;
};

class GateDevice final : public Device {
 public:
  GateDevice(std::unique_ptr<Device> inner, Gate* gate) : inner_(std::move(inner)), gate_(gate) {}

  const DeviceDescription& description() const override { return inner_->description(); }
  absl::StatusOr<TierInfo> GetTier(Tier tier) const override { return inner_->GetTier(tier); }
  absl::StatusOr<std::unique_ptr<Segment>> CreateSegment(Tier tier, uint64_t bytes) override {
    gate_->Pass(Gate::Call::kCreateSegment);
    return inner_->CreateSegment(tier, bytes);
  }
  absl::StatusOr<ExportedHandle> Export(const Segment& segment, Access access) override {
    gate_->Pass(Gate::Call::kExport);
    return inner_->Export(segment, access);
  }
  absl::StatusOr<std::unique_ptr<Mapping>> Map(ExportedHandle handle, Access access) override {
    return inner_->Map(std::move(handle), access);
  }
  absl::Status Upload(Mapping& mapping, uint64_t offset_bytes, absl::Span<const std::byte> source) override {
    return inner_->Upload(mapping, offset_bytes, source);
  }
  absl::Status Download(const Mapping& mapping, uint64_t offset_bytes, absl::Span<std::byte> target) override {
    return inner_->Download(mapping, offset_bytes, target);
  }
  absl::Status Copy(const Mapping& source, uint64_t source_offset_bytes, Mapping& target, uint64_t target_offset_bytes,
                    uint64_t bytes) override {
    gate_->Pass(Gate::Call::kCopy);
    return inner_->Copy(source, source_offset_bytes, target, target_offset_bytes, bytes);
  }
  absl::Status Replace(Mapping& mapping, ExportedHandle handle) override {
    return inner_->Replace(mapping, std::move(handle));
  }
  absl::Status Synchronize() override { return inner_->Synchronize(); }
  absl::StatusOr<TensorMap> EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) override {
    return inner_->EncodeTensorMap(spec, address);
  }
  absl::StatusOr<TensorMap> RebaseTensorMap(const TensorMap& map, uint64_t address) override {
    return inner_->RebaseTensorMap(map, address);
  }
  absl::StatusOr<std::unique_ptr<SharedPage>> CreateSharedPage(uint64_t bytes, UniqueFd* fd) override {
    gate_->Pass(Gate::Call::kCreateSharedPage);
    return inner_->CreateSharedPage(bytes, fd);
  }
  absl::StatusOr<std::unique_ptr<SharedPage>> MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) override {
    return inner_->MapSharedPage(std::move(fd), bytes, access);
  }

 private:
  const std::unique_ptr<Device> inner_;
  Gate* const gate_;
};

}  // namespace dak::daemon

#endif  // DAK_TESTS_UNIT_DAEMON_GATE_DEVICE_H_
