// C++20 over dak/migration.h: the part of dak::Session that moves tensors and lets go of HBM.
//
// Thread safety, ownership and errors: as dak/migration.h says of each call.
#ifndef DAK_MIGRATION_HPP_
#define DAK_MIGRATION_HPP_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dak/migration.h"
#include "dak/result.hpp"
#include "dak/tensor.hpp"

namespace dak {
inline namespace v0 {

struct TensorMove {
  Tensor tensor{};
  double offload_ratio = 0;
  dak_tier remote_tier = static_cast<dak_tier>(0);  // 0: as it is
  uint32_t tile_rows = 0;                           // 0: 64
  bool written = false;                             // rows from stable_rows on may be written until the commit
  uint64_t stable_rows = 0;
};

// Base of Session, which has get().
template <typename Session>
class MigrationCalls {
 public:
  Result<dak_move_info> PrepareMove(std::span<const TensorMove> moves) {
    std::vector<dak_tensor_move> given;
    for (const TensorMove& move : moves) {
      given.push_back({sizeof(dak_tensor_move), move.tensor.get(), move.offload_ratio, move.remote_tier, move.tile_rows,
                       move.written ? 1 : 0, move.stable_rows});
    }
    dak_move_info info{};
    info.struct_size = sizeof(info);
    const Status status =
        Check([&](dak_error* e) { return dak_move_prepare(session(), given.data(), given.size(), &info, e); });
    if (!status.ok()) return status;
    return info;
  }
  Result<dak_move_info> PrepareMoveToPlan(const std::string& group = "default") {
    dak_move_info info{};
    info.struct_size = sizeof(info);
    const Status status =
        Check([&](dak_error* e) { return dak_move_prepare_plan(session(), group.c_str(), &info, e); });
    if (!status.ok()) return status;
    return info;
  }
  Status CommitMove() {
    return Check([&](dak_error* e) { return dak_move_commit(session(), e); });
  }
  Status AbortMove() {
    return Check([&](dak_error* e) { return dak_move_abort(session(), e); });
  }

  Status Suspend() {
    return Check([&](dak_error* e) { return dak_session_suspend(session(), e); });
  }
  Status Resume() {
    return Check([&](dak_error* e) { return dak_session_resume(session(), e); });
  }
  Result<dak_residence> GetResidence() const {
    dak_residence residence = DAK_ACTIVE;
    const Status status = Check([&](dak_error* e) { return dak_session_get_residence(session(), &residence, e); });
    if (!status.ok()) return status;
    return residence;
  }

 private:
  dak_session* session() const { return static_cast<const Session*>(this)->get(); }
};

}  // namespace v0
}  // namespace dak

#endif  // DAK_MIGRATION_HPP_
