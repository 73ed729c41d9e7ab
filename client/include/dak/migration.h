/* Moving tensors between tiers, and letting go of HBM while idle. Part of dak/dak.h, whose rules hold here.
 *
 * Concept. A move gives tensors another split of their rows while operations go on; the change itself is made between
 * two passes, when you say so. A suspended session may be demoted by an operator: its memory leaves HBM, its addresses
 * stay. Whatever fails leaves the old places in force (docs/migration.md).
 */
#ifndef DAK_MIGRATION_H_
#define DAK_MIGRATION_H_

#include "dak/dak.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Another split of a tensor's rows. */
typedef struct dak_tensor_move {
  size_t struct_size;
  dak_tensor* tensor;
  double offload_ratio;
  dak_tier remote_tier; /* 0: where its remote rows are now; DAK_TIER_HOST if it has none */
  uint32_t tile_rows;   /* 0: 64 */
  int32_t written;      /* not 0: rows from stable_rows on may be written until the commit, which copies them */
  uint64_t stable_rows;
} dak_tensor_move;
/* What dakd copied for a move, and in which time. */
typedef struct dak_move_info {
  size_t struct_size;
  uint64_t tensor_count;
  uint64_t hbm_to_remote_bytes;
  uint64_t remote_to_hbm_bytes;
  uint64_t within_tier_bytes; /* these don't cross the link */
  uint64_t copy_ns;
} dak_move_info;
/* Copies `count` (1 to 1024) tensors of one group to where new ratios put them, at what the link has left. Returns when
 * that is done: call it on a thread of its own and go on with operations, which use the old places meanwhile. Rows that
 * aren't stable apart, the tensors must not be written until the commit. Both places count against the quotas until
 * then; tensors that share segments should move together, since a segment is given back as a whole. One move at a time.
 * `info` may be NULL. docs/migration.md. */
DAK_API dak_code dak_move_prepare(dak_session* session, const dak_tensor_move* moves, size_t count, dak_move_info* info,
                                  dak_error* error);
/* The same for tensors of `group` (NULL: "default") that have the name of an operation of the session's plan, as far as
 * they aren't at its ratio yet, at most 1024. info->tensor_count says how many; with 0 there is nothing to commit. Call
 * it when plan_version of dak_session_get_info has changed. DAK_NOT_FOUND if there is no plan. */
DAK_API dak_code dak_move_prepare_plan(dak_session* session, const char* group, dak_move_info* info, dak_error* error);
/* Between two passes: waits for all that this process has enqueued on the device, copies rows that were written since,
 * and changes over. Parts and pointers that dak_tensor_get_part gave before are void. If it fails before the change the
 * old places stay in force and the move stays prepared; if only dakd couldn't be told (the message says so), the
 * tensors have moved. DAK_FAILED_PRECONDITION (NO_MOVE) if none is prepared. */
DAK_API dak_code dak_move_commit(dak_session* session, dak_error* error);
/* Gives the new places back. */
DAK_API dak_code dak_move_abort(dak_session* session, dak_error* error);

typedef enum dak_residence { DAK_ACTIVE = 0, DAK_SUSPENDED = 1, DAK_DEMOTED = 2 } dak_residence;
/* Says that this process touches no memory of the session until dak_session_resume returns, so that an operator may
 * take the session out of HBM (dakctl demote). Waits for all that this process has enqueued on the device. Until then
 * every call that uses or changes the session's tensors answers DAK_FAILED_PRECONDITION with reason SUSPENDED; kernels
 * of your own that use them are yours to hold back. Addresses stay as they are. Publications aren't the session's, and
 * stay. */
DAK_API dak_code dak_session_suspend(dak_session* session, dak_error* error);
/* Back to work: ends a demotion that is under way, and brings a demoted session back to HBM, behind the same addresses.
 * If it doesn't fit any more (DAK_RESOURCE_EXHAUSTED with the shortfall) or fails, the session stays suspended, nothing
 * is lost, and the call may be repeated. */
DAK_API dak_code dak_session_resume(dak_session* session, dak_error* error);
DAK_API dak_code dak_session_get_residence(dak_session* session, dak_residence* residence, dak_error* error);

#ifdef __cplusplus
}
#endif

#endif /* DAK_MIGRATION_H_ */
