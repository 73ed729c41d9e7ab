// `dakctl plan`: how a model would be split and how fast it would decode. Needs no daemon and no GPU.
//
// Thread safety: reads files and writes to the streams given; otherwise pure.
#ifndef DAK_DAEMON_PLANNER_PLAN_COMMAND_H_
#define DAK_DAEMON_PLANNER_PLAN_COMMAND_H_

#include <ostream>
#include <string>

#include "absl/types/span.h"

namespace dak::planner {

// Exit codes.
inline constexpr int kPlanFits = 0;        // a plan was printed (or the help)
inline constexpr int kPlanDoesNotFit = 1;  // the model fits in no way; why and by how much was printed
inline constexpr int kPlanUsage = 2;       // a flag, the config or the profile is wrong; `err` names it and the limit

// `args` are those after "dakctl plan".
int RunPlanCommand(absl::Span<const std::string> args, std::ostream& out, std::ostream& err);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_PLAN_COMMAND_H_
