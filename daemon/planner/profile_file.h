// A machine's profile from a JSON file, for planning where the machine isn't.
//
// The fields are those of dak.v1.Profile under their own names, and of the planner's remote tiers:
//   {"hbm_bytes_per_s": 2990e9, "link_bytes_per_s": 51.1e9, "flops_per_s": 798e12, "copy_engine_bytes_per_s": 54.7e9,
//    "remote_tiers": [{"name": "host", "capacity_bytes": 68719476736},
//                     {"name": "cxl", "bytes_per_s": 20e9, "round_trip_ns": 2300, "own_link": true}],
//    "batch_rates": [{"batch": 64, "hbm_bytes_per_s": 2800e9, "flops_per_s": 798e12, "operation_s": 2e-6}]}
// `dakd --print-profile` writes one.
// Needed are the first three. Without remote_tiers there is one, "host", without limits. The profile's own
// link_bytes_per_s, round_trip_ns, knee_bytes and cliff_bytes are of the link that tiers without own_link share.
//
// Thread safety: pure functions. Errors: INVALID_ARGUMENT names the field and the limit; NOT_FOUND for the file.
#ifndef DAK_DAEMON_PLANNER_PROFILE_FILE_H_
#define DAK_DAEMON_PLANNER_PROFILE_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "daemon/planner/planner.h"

namespace dak::planner {

absl::StatusOr<Profile> ParseProfile(const std::string& json);
// The text from which ParseProfile makes the same profile, with a line's end.
std::string FormatProfile(const Profile& profile);

// A path (it has a '/' or ends in ".json"), or a name that NamedProfile knows.
absl::StatusOr<Profile> LoadProfile(const std::string& name_or_path);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_PROFILE_FILE_H_
