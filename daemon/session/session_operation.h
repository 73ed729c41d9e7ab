// The turn of one operation of a session: for the session's own source files.
#ifndef DAK_DAEMON_SESSION_SESSION_OPERATION_H_
#define DAK_DAEMON_SESSION_SESSION_OPERATION_H_

#include "daemon/session/session.h"

namespace dak::daemon {

// Waits for its turn; gives it back on destruction, which tears the session down if it was closed meanwhile.
class Session::Operation {
 public:
  explicit Operation(Session* session) : session_(session), status_(session->BeginOperation()) {}
  ~Operation() {
    if (status_.ok()) session_->EndOperation();
  }
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  const absl::Status& status() const { return status_; }

 private:
  Session* session_;
  absl::Status status_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SESSION_OPERATION_H_
