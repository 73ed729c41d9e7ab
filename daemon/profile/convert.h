// Profiles between the configuration's message, the API's and the planner's. Pure functions.
#ifndef DAK_DAEMON_PROFILE_CONVERT_H_
#define DAK_DAEMON_PROFILE_CONVERT_H_

#include "absl/status/status.h"
#include "daemon/config/config.pb.h"
#include "daemon/planner/planner.h"

namespace dak::daemon {

// Lays the values that `config` has over `profile`; INVALID_ARGUMENT names the field ("profile.hbm_bytes_per_s").
// Rates by batch replace those of `profile` as a whole; none of them survive a changed rate of HBM, link or flops.
// Those of `cxl` are the remote tier's of that name, which is added where there is none.
absl::Status ApplyValues(const config::Profile& config, planner::Profile* profile);
// Whether ApplyValues would change anything.
bool HasValues(const config::Profile& config);
// All values, so that ApplyValues gives the same profile again.
config::Profile ValuesOf(const planner::Profile& profile);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PROFILE_CONVERT_H_
