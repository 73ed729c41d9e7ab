// The node's state as one scrape sees it. Thread-safe: it locks what it reads, part by part.
#ifndef DAK_DAEMON_SNAPSHOT_H_
#define DAK_DAEMON_SNAPSHOT_H_

#include "daemon/rpc/call.h"
#include "monitoring/metrics.h"

namespace dak::daemon {

monitoring::Snapshot TakeSnapshot(const ServiceContext& service);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SNAPSHOT_H_
