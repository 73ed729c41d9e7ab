#include "daemon/rpc/convert.h"

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/layout.h"

namespace dak::daemon {

absl::StatusOr<Tier> TierFrom(absl::string_view field, v1::Tier tier) {
  switch (tier) {
    case v1::TIER_HBM:
      return Tier::kHbm;
    case v1::TIER_HOST:
      return Tier::kHost;
    case v1::TIER_CXL:
      return Tier::kCxl;
    default:
      return InvalidField(field, absl::StrCat(static_cast<int>(tier), " is no tier"),
                          "TIER_HBM, TIER_HOST or TIER_CXL");
  }
}

absl::StatusOr<TensorSpec> SpecFrom(absl::string_view field, const v1::TensorSpec& message) {
  const int type = static_cast<int>(message.data_type());
  if (type < v1::DATA_TYPE_BF16 || type > v1::DATA_TYPE_U8) {
    return InvalidField(absl::StrCat(field, ".data_type"), absl::StrCat(type, " is no data type"),
                        "DATA_TYPE_BF16, DATA_TYPE_F16, DATA_TYPE_F32 or DATA_TYPE_U8");
  }
  TensorSpec spec = {.name = message.name(),
                     .element = static_cast<ElementType>(type),
                     .rows = message.rows(),
                     .cols = message.cols(),
                     .remote_tier = Tier::kHost,
                     .offload_ratio = message.offload_ratio(),
                     .tile_rows = message.tile_rows(),
                     .box_rows = message.box_rows(),
                     .box_cols = message.box_cols()};
  if (message.remote_tier() != v1::TIER_UNSPECIFIED || spec.offload_ratio > 0) {
    DAK_ASSIGN_OR_RETURN(spec.remote_tier, TierFrom(absl::StrCat(field, ".remote_tier"), message.remote_tier()));
  }
  DAK_RETURN_IF_ERROR(ValidateTensorSpec(field, spec));
  return spec;
}

void FillTierBytes(const TierArray& bytes, bool with_zeros, TierBytesList* out) {
  for (const Tier tier : kAllTiers) {
    if (bytes[TierIndex(tier)] == 0 && !with_zeros) continue;
    v1::TierBytes* entry = out->Add();
    entry->set_tier(static_cast<v1::Tier>(tier));
    entry->set_bytes(bytes[TierIndex(tier)]);
  }
}

void FillTensor(const TensorView& view, v1::Tensor* out) {
  const Tensor& tensor = view.tensor;
  out->set_tensor_id(tensor.id);
  out->set_name(tensor.name);
  out->set_group(view.group);
  out->set_data_type(static_cast<v1::DataType>(tensor.element));
  out->set_rows(tensor.rows);
  out->set_cols(tensor.cols);
  out->set_session_id(view.session_id);
  for (size_t i = 0; i < tensor.parts.size(); ++i) {
    const TensorPart& from = tensor.parts[i];
    v1::TensorPart* part = out->add_parts();
    part->set_tier(static_cast<v1::Tier>(from.tier));
    part->set_first_row(from.first_row);
    part->set_rows(from.rows);
    part->set_segment_id(from.segment_id);
    part->set_offset_bytes(from.offset_bytes);
    part->set_bytes(from.bytes);
    part->set_box_rows(tensor.box_rows);
    part->set_box_cols(tensor.box_cols);
    if (i < view.maps.size() && view.maps[i] != nullptr) {
      part->set_tensor_map(view.maps[i]->bytes.data(), view.maps[i]->bytes.size());
    }
  }
}

void FillGrant(const Grant& grant, v1::SegmentGrant* out) {
  out->set_segment_id(grant.segment_id);
  out->set_tier(static_cast<v1::Tier>(grant.tier));
  out->set_bytes(grant.bytes);
  out->set_kind(static_cast<v1::HandleKind>(grant.kind));
  out->set_ticket(grant.ticket);
  out->set_read_only(grant.read_only);
  out->set_delivered(grant.delivered);
}

void FillPublication(const PublicationSummary& summary, v1::PublicationInfo* out) {
  out->set_name(summary.name);
  out->set_fingerprint(summary.fingerprint);
  out->set_owner_uid(summary.owner_uid);
  out->set_tensor_count(summary.tensor_count);
  FillTierBytes(summary.bytes, false, out->mutable_bytes());
  out->set_attached_sessions(summary.attached_sessions);
  out->set_withdrawn(summary.withdrawn);
  out->set_age_ns(summary.age_ns);
}

void FillPlan(absl::Span<const std::string> names, const planner::PassPlan& pass, v1::Plan* out) {
  out->mutable_operations()->Reserve(static_cast<int>(pass.operations.size()));
  for (size_t i = 0; i < pass.operations.size(); ++i) {
    v1::OperationPlan* operation = out->add_operations();
    operation->set_name(names[i]);
    operation->set_offload_ratio(pass.operations[i].ratio);
    operation->set_predicted_s(pass.operations[i].predicted_s);
  }
  out->set_predicted_s(pass.predicted_s);
  out->set_uniform_s(pass.uniform_s);
  out->set_all_hbm_s(pass.all_hbm_s);
  out->set_remote_bytes(pass.remote_bytes);
}

void FillPlan(const SessionPlan& plan, const planner::Profile& profile, v1::Plan* out) {
  const planner::NodePassPlan& in_force = plan.in_force;
  FillPlan(*plan.operation_names, in_force.plan, out);
  out->set_session_id(in_force.plan.session_id);
  out->set_version(in_force.version);
  out->set_moved_bytes(in_force.moved_bytes);
  out->set_target_s(in_force.target_s);
  for (size_t i = 0; i < in_force.remote_rows.size(); ++i) {
    v1::OperationPlan* operation = out->mutable_operations(static_cast<int>(i));
    if (plan.has_rows[i]) operation->set_remote_rows(in_force.remote_rows[i]);
    operation->set_remote_tier(profile.remote_tiers[in_force.tiers[i]].name);
  }
}

v1::Handle HandleMessage(const HandleGrant& grant) {
  v1::Handle handle;
  handle.set_purpose(static_cast<v1::Handle::Purpose>(grant.purpose));
  if (grant.purpose == HandleGrant::Purpose::kSegment) {
    handle.set_segment_id(grant.segment_id);
    handle.set_tier(static_cast<v1::Tier>(grant.tier));
  }
  handle.set_kind(static_cast<v1::HandleKind>(grant.kind));
  handle.set_bytes(grant.bytes);
  handle.set_read_only(grant.read_only);
  return handle;
}

v1::ErrorDetail DetailMessage(const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  v1::ErrorDetail message;
  message.set_field(detail.field);
  message.set_reason(detail.reason);
  message.set_limit(detail.limit);
  message.set_shortfall_bytes(detail.shortfall_bytes);
  return message;
}

}  // namespace dak::daemon
