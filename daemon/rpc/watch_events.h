// The stream of WatchEvents: one thread of the server a watcher, with a queue of at most 4096 events.
#ifndef DAK_DAEMON_RPC_WATCH_EVENTS_H_
#define DAK_DAEMON_RPC_WATCH_EVENTS_H_

#include <grpcpp/support/sync_stream.h>

#include "daemon/rpc/call.h"
#include "dak/v1/node.pb.h"

namespace dak::daemon {

// Returns when the stream has ended, with its status: the watcher has gone or was too slow, or the daemon stops.
grpc::Status StreamEvents(const ServiceContext& service, const grpc::ServerContext& context,
                          const v1::WatchEventsRequest& request, grpc::ServerWriter<v1::Event>* writer);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_WATCH_EVENTS_H_
