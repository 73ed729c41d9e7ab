// Publications: sealed groups under a name, which outlive the session that made them.
//
// A publication owns its segments and tensors. It is freed when it has been withdrawn and no session is attached any
// more; its publisher counts as attached until it detaches or its session ends. A name is free again as soon as its
// publication is withdrawn.
//
// Thread safety: all methods of Publications may be called from any thread. A Publication's contents don't change
// while a session is attached, so who is attached may read them without a lock.
// Errors: ALREADY_EXISTS (name taken, attached already), NOT_FOUND, FAILED_PRECONDITION with FINGERPRINT_MISMATCH,
// PERMISSION_DENIED with NOT_OWNER, RESOURCE_EXHAUSTED (too many).
#ifndef DAK_DAEMON_SESSION_PUBLICATIONS_H_
#define DAK_DAEMON_SESSION_PUBLICATIONS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "allocator/ledger.h"
#include "daemon/events/event_log.h"
#include "daemon/session/arena.h"
#include "daemon/session/tensor.h"

namespace dak::daemon {

struct Publication {
  std::string name;
  std::string fingerprint;
  uint32_t owner_uid = 0;
  uint64_t created_ns = 0;  // of the monotonic clock

  // Set by Commit.
  Group group;
  std::vector<Tensor> tensors;  // in order of id
  TierArray bytes{};

  const Tensor* FindTensor(uint64_t tensor_id) const;
};
using PublicationPtr = std::shared_ptr<Publication>;

struct PublicationSummary {
  std::string name;
  std::string fingerprint;
  uint32_t owner_uid = 0;
  uint64_t tensor_count = 0;
  TierArray bytes{};
  uint32_t attached_sessions = 0;
  bool withdrawn = false;
  uint64_t age_ns = 0;
};

class Publications {
 public:
  Publications(Ledger* ledger, EventLog* events, uint64_t max_publications)
      : ledger_(ledger), events_(events), max_publications_(max_publications) {}
  ~Publications();

  // Takes the name for a publication whose contents are still to come; nobody sees it until Commit.
  absl::StatusOr<PublicationPtr> Reserve(const std::string& name, const std::string& fingerprint, uint32_t owner_uid);
  void Abandon(const PublicationPtr& publication);
  // Puts the sealed contents in and the publisher on the list of attached sessions.
  void Commit(const PublicationPtr& publication, Group group, std::vector<Tensor> tensors, uint64_t session_id);

  // An empty fingerprint matches any.
  absl::StatusOr<PublicationPtr> Attach(const std::string& name, const std::string& fingerprint, uint64_t session_id);
  // Ends an attachment; frees the publication if it was the last of a withdrawn one.
  void Detach(const PublicationPtr& publication, uint64_t session_id);
  // Returns how many sessions are still attached.
  absl::StatusOr<uint32_t> Withdraw(const std::string& name, uint32_t uid);

  // In order of name; withdrawn ones that are still attached come last.
  std::vector<PublicationSummary> List() const;
  // Up to `count` tensors with an id of at least `first_id`, by id.
  void CollectTensors(uint64_t first_id, size_t count, std::vector<TensorView>* out) const;
  PlacementStats Placement() const;
  size_t size() const;

 private:
  struct Entry {
    PublicationPtr publication;
    absl::flat_hash_set<uint64_t> attached;
    bool ready = false;
  };
  void Free(PublicationPtr publication);
  absl::StatusOr<Entry*> FindReady(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Ledger* const ledger_;
  EventLog* const events_;
  const uint64_t max_publications_;
  mutable absl::Mutex mutex_;
  absl::btree_map<std::string, Entry> named_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<const Publication*, Entry> withdrawn_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_PUBLICATIONS_H_
