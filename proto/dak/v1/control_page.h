// The pages through which dakd and a session's kernels talk while work runs: no RPC is on the data path.
//
// Two shared pages a session, each a memfd:
//   control page: written by dakd, read by the client and its kernels. The client gets a read-only descriptor.
//   report page:  written by the client and its kernels, read by dakd, which trusts nothing in it.
//
// Both start with a header; a reader refuses a page whose magic or version it doesn't know. Every field after the
// header is one naturally aligned 64-bit word with one writer, read and written whole (relaxed atomics on the CPU,
// ld/st.relaxed.sys on the GPU), so no reader sees half a value. No field orders another: `window_bytes` alone is the
// throttle, counters only grow.
//
// Plain C++ without the standard library's atomics, since device code includes it.
#ifndef DAK_PROTO_V1_CONTROL_PAGE_H_
#define DAK_PROTO_V1_CONTROL_PAGE_H_

#include <cstddef>
#include <cstdint>

namespace dak::v1 {

inline constexpr uint32_t kControlPageMagic = 0x43'4b'41'44;  // "DAKC" in memory
inline constexpr uint32_t kReportPageMagic = 0x52'4b'41'44;   // "DAKR" in memory
inline constexpr uint32_t kControlPageVersion = 1;
inline constexpr size_t kControlPageBytes = 4096;
inline constexpr uint32_t kMaxLinks = 16;

struct PageHeader {
  uint32_t magic;
  uint32_t version;
  uint64_t session_id;
  uint32_t link_count;
  uint32_t page_bytes;
  uint64_t reserved[5];
};

// What dakd tells a session about one link.
struct alignas(64) LinkControl {
  // Most bytes that all kernels of the session together may have in flight on this link. 0 pauses remote reads;
  // kernels then keep one tile in flight per operation so that they end.
  uint64_t window_bytes;
  uint64_t epoch;  // grows with every change of window_bytes
  // Emulated links only: bytes in flight on this link by other sessions, for the client's model.
  uint64_t neighbour_inflight_bytes;
  uint64_t plan_version;  // of the session; a change means: ask for the new plan between passes
  // Of the session, in links[0] only: grows when dakd has memory to put behind the session's addresses. A suspended
  // client then calls TakeExchange (migration.proto).
  uint64_t exchange;
  uint64_t reserved[3];
};

// What a session's kernels tell dakd about one link. Counters since the session opened.
struct alignas(64) LinkReport {
  uint64_t bytes;                // read from the link
  uint64_t round_trip_ns;        // sum over the sampled reads; none that waited for a turn of the GPU
  uint64_t round_trips;          // how many were sampled
  uint64_t inflight_bytes;       // now; a gauge
  uint64_t inflight_peak_bytes;  // highest since the session opened; a gauge that only grows
  uint64_t passes;               // operations finished; those without remote reads, begun
  uint64_t reserved[2];
};

struct ControlPage {
  PageHeader header;
  LinkControl links[kMaxLinks];
};

struct ReportPage {
  PageHeader header;
  LinkReport links[kMaxLinks];
};

static_assert(sizeof(PageHeader) == 64 && sizeof(LinkControl) == 64 && sizeof(LinkReport) == 64);
static_assert(sizeof(ControlPage) <= kControlPageBytes && sizeof(ReportPage) <= kControlPageBytes);

}  // namespace dak::v1

#endif  // DAK_PROTO_V1_CONTROL_PAGE_H_
