// One client process of the demo: a session with a split model, passes without end, results checked.
//
// Says on its standard output, one line each:
//   ready HBM_SHARE PREDICTED_S         the model is loaded; share of its bytes that the plan leaves in HBM
//   stat PASSES CHECKED WORST_ERROR     every fifth of a second
//   failed TEXT                         and ends with code 1
// Ends with code 0 when its standard input says "quit" or is closed.
#ifndef DAK_CLIENT_DEMO_WORKER_H_
#define DAK_CLIENT_DEMO_WORKER_H_

#include "client/demo/options.h"

namespace dak::demo {

// The exit code.
int RunWorker(const Options& options);

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_WORKER_H_
