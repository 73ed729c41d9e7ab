// A tensor as this process sees it: its shape, and where its parts are mapped.
//
// Everything but the two flags and the parts is fixed from its making on, so reads need no lock; parts change only
// where the session holds everybody off (Session::CommitMove). A tensor must not be freed while another call uses it,
// as with any memory. Ownership: the session owns tensors and the mappings that their parts point into. Thread safety:
// const methods, Upload and Download may be called from any thread.
#ifndef DAK_CLIENT_SRC_TENSOR_H_
#define DAK_CLIENT_SRC_TENSOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "allocator/device/device.h"
#include "dak/v1/tensor.pb.h"

namespace dak::client {

class Session;

struct Part {
  Tier tier = Tier::kHbm;
  uint64_t first_row = 0;
  uint64_t rows = 0;
  uint64_t bytes = 0;
  uint64_t segment_id = 0;
  uint64_t offset_bytes = 0;  // of the segment
  Mapping* mapping = nullptr;
  std::optional<TensorMap> map;  // rebased to address()
  TensorMapSpec map_spec;

  uint64_t address() const { return mapping->address() + offset_bytes; }
};

class Tensor {
 public:
  // Checks what the daemon says against the mappings that `mapping_of` knows (null: unknown segment) and rebases the
  // descriptors. INTERNAL if the daemon contradicts itself.
  template <typename MappingOf>
  static absl::StatusOr<std::unique_ptr<Tensor>> Make(Session* session, Device& device, const v1::Tensor& proto,
                                                      const MappingOf& mapping_of) {
    std::vector<Mapping*> mappings;
    for (const v1::TensorPart& part : proto.parts()) mappings.push_back(mapping_of(part.segment_id()));
    return MakeFrom(session, device, proto, mappings);
  }

  Session* session() const { return session_; }
  uint64_t id() const { return id_; }
  const std::string& name() const { return name_; }
  const std::string& group() const { return group_; }
  ElementType element() const { return element_; }
  uint64_t rows() const { return rows_; }
  uint64_t cols() const { return cols_; }
  uint64_t bytes() const { return rows_ * cols_ * ElementBytes(element_); }
  const std::vector<Part>& parts() const { return parts_; }
  // Exchanges where the two are.
  void SwapParts(Tensor& other) { parts_.swap(other.parts_); }

  bool read_only() const { return read_only_.load(std::memory_order_acquire); }
  void SetReadOnly() { read_only_.store(true, std::memory_order_release); }
  // After a free that failed half-way: its memory is unmapped, all it can still do is be freed.
  bool unmapped() const { return unmapped_.load(std::memory_order_acquire); }
  void SetUnmapped() { unmapped_.store(true, std::memory_order_release); }
  absl::Status CheckMapped() const;
  // The daemon doesn't know it any more; guarded by the session's control mutex.
  bool freed_remotely() const { return freed_remotely_; }
  void SetFreedRemotely() { freed_remotely_ = true; }

  // FAILED_PRECONDITION if read-only; OUT_OF_RANGE names the field.
  absl::Status Upload(Device& device, uint64_t offset_bytes, absl::Span<const std::byte> source);
  absl::Status Download(Device& device, uint64_t offset_bytes, absl::Span<std::byte> target) const;
  // Fills the tensor with zeros.
  absl::Status Clear(Device& device);
  // Encodes part `index`'s descriptor afresh and compares.
  absl::Status VerifyMap(Device& device, uint32_t index) const;

 private:
  Tensor() = default;
  static absl::StatusOr<std::unique_ptr<Tensor>> MakeFrom(Session* session, Device& device, const v1::Tensor& proto,
                                                          absl::Span<Mapping* const> mappings);
  absl::Status CheckShape() const;
  absl::Status CheckRange(uint64_t offset_bytes, uint64_t bytes) const;
  // Calls visit(part, offset in its segment, offset in the range, bytes) for every part that the range touches.
  template <typename Visit>
  absl::Status ForRange(uint64_t offset_bytes, uint64_t bytes, const Visit& visit) const;

  Session* session_ = nullptr;
  uint64_t id_ = 0;
  std::string name_;
  std::string group_;
  ElementType element_ = ElementType::kBf16;
  uint64_t rows_ = 0;
  uint64_t cols_ = 0;
  std::vector<Part> parts_;
  std::atomic<bool> read_only_{false};
  std::atomic<bool> unmapped_{false};
  bool freed_remotely_ = false;
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_TENSOR_H_
