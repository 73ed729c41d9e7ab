// The C ABI of moves, suspension and demotion.
#include <utility>
#include <vector>

#include "client/src/c_api.h"

namespace dak::client {
namespace {

void FillMoveInfo(const MoveStatus& status, dak_move_info* info) {
  if (info == nullptr) return;
  dak_move_info filled{};
  filled.tensor_count = status.tensor_count;
  filled.hbm_to_remote_bytes = status.hbm_to_remote_bytes;
  filled.remote_to_hbm_bytes = status.remote_to_hbm_bytes;
  filled.within_tier_bytes = status.within_tier_bytes;
  filled.copy_ns = status.copy_ns;
  WriteStruct(filled, info);
}

absl::Status PrepareMove(dak_session* session, const dak_tensor_move* moves, size_t count, dak_move_info* info) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(NotNull("moves", moves));
  DAK_RETURN_IF_ERROR(CheckCount(count, kMaxTensors));
  if (info != nullptr) DAK_RETURN_IF_ERROR(CheckOutput("info", info));
  std::vector<MoveSpec> specs;
  for (size_t i = 0; i < count; ++i) {
    dak_tensor_move given{};
    DAK_RETURN_IF_ERROR(ReadElement("moves", moves, i, &given));
    specs.push_back({.tensor = Unwrap(given.tensor),
                     .offload_ratio = given.offload_ratio,
                     .remote_tier = static_cast<int>(given.remote_tier),
                     .tile_rows = given.tile_rows,
                     .written = given.written != 0,
                     .stable_rows = given.stable_rows});
  }
  DAK_ASSIGN_OR_RETURN(const MoveStatus status, Unwrap(session)->PrepareMove(specs));
  FillMoveInfo(status, info);
  return absl::OkStatus();
}

absl::Status PrepareMoveToPlan(dak_session* session, const char* group, dak_move_info* info) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(CheckOutput("info", info));
  DAK_ASSIGN_OR_RETURN(const MoveStatus status, Unwrap(session)->PrepareMoveToPlan(TextOr(group, "default")));
  FillMoveInfo(status, info);
  return absl::OkStatus();
}

}  // namespace
}  // namespace dak::client

using namespace dak::client;

dak_code dak_move_prepare(dak_session* session, const dak_tensor_move* moves, size_t count, dak_move_info* info,
                          dak_error* error) {
  return Guard(error, [&] { return PrepareMove(session, moves, count, info); });
}

dak_code dak_move_prepare_plan(dak_session* session, const char* group, dak_move_info* info, dak_error* error) {
  return Guard(error, [&] { return PrepareMoveToPlan(session, group, info); });
}

dak_code dak_move_commit(dak_session* session, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    return Unwrap(session)->CommitMove();
  });
}

dak_code dak_move_abort(dak_session* session, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    return Unwrap(session)->AbortMove();
  });
}

dak_code dak_session_suspend(dak_session* session, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    return Unwrap(session)->Suspend();
  });
}

dak_code dak_session_resume(dak_session* session, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    return Unwrap(session)->Resume();
  });
}

dak_code dak_session_get_residence(dak_session* session, dak_residence* residence, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    DAK_RETURN_IF_ERROR(NotNull("residence", residence));
    *residence = static_cast<dak_residence>(Unwrap(session)->GetResidence());
    return absl::OkStatus();
  });
}
