#include "daemon/session/copier.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/clock.h"

namespace dak::daemon {
namespace {

constexpr double kNsPerSecond = 1e9;
// A chunk takes about this long at the rate allowed: short enough to end soon and to follow a new rate, long enough for
// the copy engine not to wait for its calls.
constexpr double kChunkSeconds = 500e-6;
constexpr uint64_t kLeastChunkBytes = uint64_t{64} << 10;
constexpr uint64_t kMostChunkBytes = uint64_t{16} << 20;

bool CrossesLink(const CopyStep& step) { return IsRemote(step.source->tier()) != IsRemote(step.target->tier()); }

// Every segment mapped once, on first use.
class Mappings {
 public:
  explicit Mappings(Device* device) : device_(device) {}
  absl::StatusOr<Mapping*> Of(const Segment* segment) {
    std::unique_ptr<Mapping>& slot = mapped_[segment];
    if (slot == nullptr) {
      DAK_ASSIGN_OR_RETURN(ExportedHandle handle, device_->Export(*segment, Access::kReadWrite));
      DAK_ASSIGN_OR_RETURN(slot, device_->Map(std::move(handle), Access::kReadWrite));
    }
    return slot.get();
  }

 private:
  Device* const device_;
  absl::flat_hash_map<const Segment*, std::unique_ptr<Mapping>> mapped_;
};

// Sleeps end late by about this much, and shorter ones aren't worth it: chunks may catch up on what was lost that way.
constexpr uint64_t kSlackNs = 200'000;

// Spaces chunks out such that the rate allowed isn't passed.
class Pacer {
 public:
  Pacer(CongestionLoop* congestion, uint32_t link) : congestion_(congestion), link_(link), next_ns_(MonotonicNs()) {
    if (congestion_ != nullptr) congestion_->BeginBackground(link_);
  }
  ~Pacer() {
    if (congestion_ != nullptr) congestion_->EndBackground(link_);
  }
  Pacer(const Pacer&) = delete;
  Pacer& operator=(const Pacer&) = delete;
  uint64_t ChunkBytes() const {
    if (congestion_ == nullptr) return kMostChunkBytes;
    const double bytes = congestion_->BackgroundBytesPerS(link_) * kChunkSeconds;
    return std::clamp(static_cast<uint64_t>(bytes), kLeastChunkBytes, kMostChunkBytes);
  }
  void Await(uint64_t bytes) {
    if (congestion_ == nullptr) return;
    const uint64_t now_ns = MonotonicNs();
    const double rate = std::max(congestion_->BackgroundBytesPerS(link_), 1.0);
    const uint64_t chunk_ns = static_cast<uint64_t>(static_cast<double>(bytes) / rate * kNsPerSecond);
    // A copy that was held up for longer doesn't catch up: its neighbours would pay for it.
    next_ns_ = std::max(next_ns_ + chunk_ns, now_ns - kSlackNs);
    if (next_ns_ > now_ns + kSlackNs) absl::SleepFor(absl::Nanoseconds(next_ns_ - now_ns));
  }

 private:
  CongestionLoop* const congestion_;
  const uint32_t link_;
  uint64_t next_ns_;
};

// One a link, from the first step that crosses it to the end.
class Pacers {
 public:
  Pacers(const DeviceDescription& device, CongestionLoop* congestion) : device_(device), congestion_(congestion) {}
  Pacer* Of(const CopyStep& step) {
    if (!CrossesLink(step)) return nullptr;
    const Tier remote = IsRemote(step.source->tier()) ? step.source->tier() : step.target->tier();
    std::unique_ptr<Pacer>& pacer = pacers_[device_.LinkOf(remote)];
    if (pacer == nullptr) pacer = std::make_unique<Pacer>(congestion_, device_.LinkOf(remote));
    return pacer.get();
  }

 private:
  const DeviceDescription& device_;
  CongestionLoop* const congestion_;
  absl::flat_hash_map<uint32_t, std::unique_ptr<Pacer>> pacers_;
};

absl::Status CopyOne(Device& device, Mappings& mappings, Pacer* pacer, const CopyStep& step, const CopyHooks& hooks,
                     CopyStats* stats) {
  DAK_ASSIGN_OR_RETURN(const Mapping* const source, mappings.Of(step.source));
  DAK_ASSIGN_OR_RETURN(Mapping* const target, mappings.Of(step.target));
  uint64_t& done = stats->bytes[TierIndex(step.source->tier())][TierIndex(step.target->tier())];
  for (uint64_t at = 0; at < step.bytes;) {
    DAK_RETURN_IF_ERROR(hooks.check());
    const uint64_t chunk = std::min(pacer != nullptr ? pacer->ChunkBytes() : kMostChunkBytes, step.bytes - at);
    DAK_RETURN_IF_ERROR(
        device.Copy(*source, step.source_offset_bytes + at, *target, step.target_offset_bytes + at, chunk));
    at += chunk;
    done += chunk;
    if (hooks.progress != nullptr) hooks.progress(stats->total_bytes());
    if (pacer != nullptr) pacer->Await(chunk);
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t CopyStats::total_bytes() const {
  uint64_t total = 0;
  for (const TierArray& from : bytes) {
    for (const uint64_t to : from) total += to;
  }
  return total;
}

uint64_t CopyStats::link_bytes() const {
  uint64_t total = 0;
  for (const Tier from : kAllTiers) {
    for (const Tier to : kAllTiers) {
      if (IsRemote(from) != IsRemote(to)) total += bytes[TierIndex(from)][TierIndex(to)];
    }
  }
  return total;
}

uint64_t TotalBytes(absl::Span<const CopyStep> steps) {
  uint64_t total = 0;
  for (const CopyStep& step : steps) total += step.bytes;
  return total;
}

uint64_t LinkBytes(absl::Span<const CopyStep> steps) {
  uint64_t total = 0;
  for (const CopyStep& step : steps) total += CrossesLink(step) ? step.bytes : 0;
  return total;
}

absl::Status CopyAll(Device& device, CongestionLoop* congestion, absl::Span<const CopyStep> steps,
                     const CopyHooks& hooks, CopyStats* stats) {
  const uint64_t begin_ns = MonotonicNs();
  Mappings mappings(&device);
  Pacers pacers(device.description(), congestion);
  absl::Status status;
  for (const CopyStep& step : steps) {
    status = CopyOne(device, mappings, pacers.Of(step), step, hooks, stats);
    if (!status.ok()) break;
  }
  stats->duration_ns = MonotonicNs() - begin_ns;
  return status;
}

std::string Describe(const CopyStats& stats) {
  std::vector<std::string> parts;
  for (const Tier from : kAllTiers) {
    for (const Tier to : kAllTiers) {
      const uint64_t bytes = stats.bytes[TierIndex(from)][TierIndex(to)];
      if (bytes > 0) parts.push_back(absl::StrCat(TierName(from), " to ", TierName(to), " ", bytes, " bytes"));
    }
  }
  if (parts.empty()) return "nothing to copy";
  const double seconds = static_cast<double>(stats.duration_ns) / kNsPerSecond;
  return absl::StrFormat("%s in %.3f s (%.1f GB/s)", absl::StrJoin(parts, ", "), seconds,
                         static_cast<double>(stats.total_bytes()) / std::max(seconds, 1e-9) / 1e9);
}

}  // namespace dak::daemon
