#include "client/src/tensor.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"

namespace dak::client {
namespace {

constexpr uint64_t kMaxDimension = (uint64_t{1} << 31) - 1;
constexpr uint32_t kDefaultBoxRows = 64;
constexpr uint32_t kBoxRowBytes = 128;  // the swizzle's width
constexpr uint64_t kClearChunkBytes = uint64_t{4} << 20;

absl::Status Contradiction(const v1::Tensor& proto, absl::string_view problem) {
  return absl::InternalError(absl::StrCat("dakd's answer about tensor ", proto.name(), " is wrong: ", problem));
}

absl::Status CheckPart(const v1::Tensor& proto, const v1::TensorPart& part, const Mapping* mapping) {
  if (mapping == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("tensor ", proto.name(), " is placed in segment ",
                                                      part.segment_id(), ", which isn't mapped here"));
  }
  if (part.bytes() > mapping->bytes() || part.offset_bytes() > mapping->bytes() - part.bytes()) {
    return Contradiction(proto, "a part ends past its segment");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tensor>> Tensor::MakeFrom(Session* session, Device& device, const v1::Tensor& proto,
                                                         absl::Span<Mapping* const> mappings) {
  std::unique_ptr<Tensor> tensor(new Tensor);
  tensor->session_ = session;
  tensor->id_ = proto.tensor_id();
  tensor->name_ = proto.name();
  tensor->group_ = proto.group();
  tensor->rows_ = proto.rows();
  tensor->cols_ = proto.cols();
  if (!v1::DataType_IsValid(proto.data_type()) || proto.data_type() == v1::DATA_TYPE_UNSPECIFIED) {
    return Contradiction(proto, "its data type is unknown");
  }
  tensor->element_ = static_cast<ElementType>(proto.data_type());
  if (proto.rows() == 0 || proto.rows() > kMaxDimension || proto.cols() == 0 || proto.cols() > kMaxDimension) {
    return Contradiction(proto, "its shape is out of range");
  }
  for (int i = 0; i < proto.parts_size(); ++i) {
    const v1::TensorPart& wire = proto.parts(i);
    DAK_RETURN_IF_ERROR(CheckPart(proto, wire, mappings[i]));
    Part part{.tier = static_cast<Tier>(wire.tier()),
              .first_row = wire.first_row(),
              .rows = wire.rows(),
              .bytes = wire.bytes(),
              .segment_id = wire.segment_id(),
              .offset_bytes = wire.offset_bytes(),
              .mapping = mappings[i],
              .map = std::nullopt,
              .map_spec = {.element = tensor->element_,
                           .rows = wire.rows(),
                           .cols = proto.cols(),
                           .box_rows = wire.box_rows() != 0 ? wire.box_rows() : kDefaultBoxRows,
                           .box_cols = wire.box_cols() != 0
                                           ? wire.box_cols()
                                           : static_cast<uint32_t>(kBoxRowBytes / ElementBytes(tensor->element_))}};
    if (!wire.tensor_map().empty()) {
      TensorMap map;
      if (wire.tensor_map().size() != map.bytes.size()) return Contradiction(proto, "a descriptor isn't 128 bytes");
      std::memcpy(map.bytes.data(), wire.tensor_map().data(), map.bytes.size());
      DAK_ASSIGN_OR_RETURN(part.map, device.RebaseTensorMap(map, part.address()));
    }
    tensor->parts_.push_back(std::move(part));
  }
  DAK_RETURN_IF_ERROR(tensor->CheckShape());
  return tensor;
}

absl::Status Tensor::CheckShape() const {
  uint64_t next_row = 0;
  bool whole = !parts_.empty() && parts_.size() <= 2;
  for (const Part& part : parts_) {
    whole = whole && part.first_row == next_row && part.bytes == part.rows * cols_ * ElementBytes(element_) &&
            TierIndex(part.tier) < kTierCount;
    next_row += part.rows;
  }
  if (whole && next_row == rows_) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("dakd's answer about tensor ", name_, " is wrong: its parts aren't its rows"));
}

absl::Status Tensor::CheckMapped() const {
  if (!unmapped()) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError(absl::StrCat("the memory of tensor ", name_,
                                                               " was unmapped by a call that then failed; the tensor "
                                                               "can only be freed")),
                    Reason("", "UNMAPPED"));
}

absl::Status Tensor::CheckRange(uint64_t offset_bytes, uint64_t bytes) const {
  const uint64_t all = this->bytes();
  if (offset_bytes <= all && bytes <= all - offset_bytes) return absl::OkStatus();
  const bool offset_at_fault = offset_bytes > all;
  return WithDetail(absl::OutOfRangeError(absl::StrCat("bytes ", offset_bytes, " + ", bytes, " of tensor ", name_,
                                                       " reach past its end (it has ", all, " bytes)")),
                    Reason(offset_at_fault ? "offset_bytes" : "bytes", "OUT_OF_RANGE",
                           absl::StrCat("at most ", offset_at_fault ? all : all - offset_bytes)));
}

template <typename Visit>
absl::Status Tensor::ForRange(uint64_t offset_bytes, uint64_t bytes, const Visit& visit) const {
  uint64_t part_begin = 0;  // of the tensor, bytes
  for (const Part& part : parts_) {
    const uint64_t begin = std::max(part_begin, offset_bytes);
    const uint64_t end = std::min(part_begin + part.bytes, offset_bytes + bytes);
    if (begin < end) {
      DAK_RETURN_IF_ERROR(visit(part, part.offset_bytes + (begin - part_begin), begin - offset_bytes, end - begin));
    }
    part_begin += part.bytes;
  }
  return absl::OkStatus();
}

absl::Status Tensor::Upload(Device& device, uint64_t offset_bytes, absl::Span<const std::byte> source) {
  DAK_RETURN_IF_ERROR(CheckMapped());
  DAK_RETURN_IF_ERROR(CheckRange(offset_bytes, source.size()));
  if (read_only()) {
    return WithDetail(absl::FailedPreconditionError(absl::StrCat("tensor ", name_, " is published: it is read-only")),
                      Reason("tensor", "READ_ONLY"));
  }
  return ForRange(offset_bytes, source.size(), [&](const Part& part, uint64_t at, uint64_t from, uint64_t bytes) {
    return device.Upload(*part.mapping, at, source.subspan(from, bytes));
  });
}

absl::Status Tensor::Download(Device& device, uint64_t offset_bytes, absl::Span<std::byte> target) const {
  DAK_RETURN_IF_ERROR(CheckMapped());
  DAK_RETURN_IF_ERROR(CheckRange(offset_bytes, target.size()));
  return ForRange(offset_bytes, target.size(), [&](const Part& part, uint64_t at, uint64_t from, uint64_t bytes) {
    return device.Download(*part.mapping, at, target.subspan(from, bytes));
  });
}

absl::Status Tensor::Clear(Device& device) {
  const std::vector<std::byte> zeros(std::min(bytes(), kClearChunkBytes));
  for (uint64_t at = 0; at < bytes(); at += zeros.size()) {
    const auto chunk = absl::MakeConstSpan(zeros).first(std::min<uint64_t>(zeros.size(), bytes() - at));
    DAK_RETURN_IF_ERROR(Upload(device, at, chunk));
  }
  return absl::OkStatus();
}

absl::Status Tensor::VerifyMap(Device& device, uint32_t index) const {
  DAK_RETURN_IF_ERROR(CheckMapped());
  if (index >= parts_.size()) {
    return InvalidField("index", absl::StrCat(index, " is out of range"), absl::StrCat("at most ", parts_.size() - 1));
  }
  const Part& part = parts_[index];
  if (!part.map.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat("part ", index, " of tensor ", name_, " has no descriptor"));
  }
  DAK_ASSIGN_OR_RETURN(const TensorMap fresh, device.EncodeTensorMap(part.map_spec, part.address()));
  if (fresh == *part.map) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the rebased descriptor of part ", index, " of tensor ", name_,
                                          " differs from one encoded at its address"));
}

}  // namespace dak::client
