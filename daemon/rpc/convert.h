// Between the API's messages and the daemon's own types. Pure functions.
//
// Errors: INVALID_ARGUMENT that names the field.
#ifndef DAK_DAEMON_RPC_CONVERT_H_
#define DAK_DAEMON_RPC_CONVERT_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "daemon/session/publications.h"
#include "daemon/session/session.h"
#include "dak/v1/handles.pb.h"
#include "dak/v1/plan.pb.h"
#include "dak/v1/session.pb.h"
#include "dak/v1/tensor.pb.h"
#include "dak/v1/types.pb.h"

namespace dak::daemon {

using TierBytesList = google::protobuf::RepeatedPtrField<v1::TierBytes>;

absl::StatusOr<Tier> TierFrom(absl::string_view field, v1::Tier tier);
// The spec, with enumerations and every bound checked.
absl::StatusOr<TensorSpec> SpecFrom(absl::string_view field, const v1::TensorSpec& message);

// All tiers, or only those with bytes.
void FillTierBytes(const TierArray& bytes, bool with_zeros, TierBytesList* out);
void FillTensor(const TensorView& view, v1::Tensor* out);
void FillGrant(const Grant& grant, v1::SegmentGrant* out);
void FillPublication(const PublicationSummary& summary, v1::PublicationInfo* out);
void FillPlan(absl::Span<const std::string> names, const planner::PassPlan& pass, v1::Plan* out);
// A plan in force; tiers are named by `profile`.
void FillPlan(const SessionPlan& plan, const planner::Profile& profile, v1::Plan* out);
v1::Handle HandleMessage(const HandleGrant& grant);

// What a status says beside its code and message.
v1::ErrorDetail DetailMessage(const absl::Status& status);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_CONVERT_H_
