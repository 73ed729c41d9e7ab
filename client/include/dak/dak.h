/* libdak: memory tiers of one GPU, shared between processes by dakd.
 *
 * Concept. A dak_session is this process's lease on the node: it holds tensors whose rows are split between HBM and a
 * remote tier, and a window (bytes that its kernels may have in flight on the link to the remote tiers). Kernels read
 * remote rows directly into shared memory; nothing is copied back into HBM.
 *
 * Ownership. A session owns its tensors: dak_session_close unmaps all and frees them. Pointers and structs that a call
 * hands out live until the session closes, or until the tensor is freed, whichever comes first. Memory of a session
 * must not be in use by a running kernel when it is freed or closed.
 *
 * Read-only. Tensors of a publication, attached or your own after publishing, are mapped read-only. A kernel that
 * writes to them is a fatal fault of the GPU context (under MPS, of every client of that GPU). libdak refuses uploads
 * to them and every operation of its own that would write to them.
 *
 * Thread safety. Every call may be made from any thread. Calls of one session that talk to the daemon are serialised,
 * operations too; neither waits for the other, and copies run side by side. A tensor must not be freed, nor its session
 * closed, while another call uses it. A forked child must not use the parent's session: calls answer
 * DAK_FAILED_PRECONDITION, and dak_session_close does nothing there.
 *
 * Errors. Calls return DAK_OK or a canonical status code (the numbers are gRPC's) and, if `error` isn't NULL, fill
 * it. A call that fails changed nothing; dak_tensors_free and dak_detach name their exception. When the daemon goes
 * away, calls answer DAK_UNAVAILABLE; memory that is mapped stays valid, and operations on it go on, until the session
 * is closed.
 *
 * ABI. Structs start with struct_size = sizeof(the struct), so that they may grow. No type of another library is used.
 */
#ifndef DAK_DAK_H_
#define DAK_DAK_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(DAK_BUILDING_LIBRARY)
#define DAK_API __attribute__((visibility("default")))
#else
#define DAK_API
#endif

typedef enum dak_code {
  DAK_OK = 0,
  DAK_CANCELLED = 1,
  DAK_UNKNOWN = 2,
  DAK_INVALID_ARGUMENT = 3,
  DAK_DEADLINE_EXCEEDED = 4,
  DAK_NOT_FOUND = 5,
  DAK_ALREADY_EXISTS = 6,
  DAK_PERMISSION_DENIED = 7,
  DAK_RESOURCE_EXHAUSTED = 8,
  DAK_FAILED_PRECONDITION = 9,
  DAK_ABORTED = 10,
  DAK_OUT_OF_RANGE = 11,
  DAK_UNIMPLEMENTED = 12,
  DAK_INTERNAL = 13,
  DAK_UNAVAILABLE = 14,
  DAK_DATA_LOSS = 15,
  DAK_UNAUTHENTICATED = 16
} dak_code;

typedef struct dak_error {
  dak_code code;
  char message[512];        /* for people */
  char field[128];          /* path of the field at fault, as "tensors[3].rows"; empty where none is */
  char reason[64];          /* stable word, as "QUOTA_EXCEEDED" */
  uint64_t shortfall_bytes; /* QUOTA_EXCEEDED, POOL_EXHAUSTED: by how much it didn't fit */
} dak_error;

/* The last enumerator of what is passed in is no value: it makes room for values that a program gets wrong, which are
 * refused then, rather than undefined. */
typedef enum dak_tier { DAK_TIER_HBM = 1, DAK_TIER_HOST = 2, DAK_TIER_CXL = 3, DAK_TIER_LIMIT = 0x7fffffff } dak_tier;

typedef enum dak_data_type {
  DAK_BF16 = 1,
  DAK_F16 = 2,
  DAK_F32 = 3,
  DAK_U8 = 4,
  DAK_DATA_TYPE_LIMIT = 0x7fffffff
} dak_data_type;

typedef struct dak_session dak_session;
typedef struct dak_tensor dak_tensor;

/* Version of the library, "0.1.0". */
DAK_API const char* dak_version(void);
/* "RESOURCE_EXHAUSTED" for DAK_RESOURCE_EXHAUSTED; never NULL. */
DAK_API const char* dak_code_name(dak_code code);

typedef struct dak_session_options {
  size_t struct_size;
  const char* runtime_dir;  /* where control.sock and handles.sock are; NULL: $DAK_RUNTIME_DIR, else /run/dak */
  const char* name;         /* shown to people; NULL: the program's name */
  uint32_t weight;          /* share of the link, 1 to 1000; 0: 100 */
  uint64_t hbm_quota_bytes; /* most that the session may hold; 0: the daemon's default */
  uint64_t host_quota_bytes;
  uint64_t cxl_quota_bytes;
  uint64_t timeout_ns; /* of every call to the daemon; 0: 10 s, allocating 120 s, moving and resuming 600 s */
} dak_session_options;

/* Connects to dakd and opens a session. DAK_UNAVAILABLE if no daemon listens (the message names the socket),
 * DAK_FAILED_PRECONDITION if it speaks another version (the message names both). */
DAK_API dak_code dak_session_open(const dak_session_options* options, dak_session** session, dak_error* error);
/* Unmaps and frees all. NULL is allowed. Never fails: without a daemon, local resources go all the same. */
DAK_API void dak_session_close(dak_session* session);

typedef struct dak_session_info {
  size_t struct_size;
  uint64_t session_id;
  char device_kind[16]; /* "cuda", "emulated" */
  char device_name[128];
  int32_t device_ordinal; /* of this process's numbering; -1 for emulated */
  char daemon_version[32];
  uint64_t window_bytes; /* now */
  uint64_t plan_version;
  uint64_t remote_bytes; /* read from remote tiers so far */
  int32_t connected;     /* 0 once the daemon has gone away */
} dak_session_info;
DAK_API dak_code dak_session_get_info(dak_session* session, dak_session_info* info, dak_error* error);

typedef struct dak_tensor_spec {
  size_t struct_size;
  const char* name;
  dak_data_type data_type;
  uint64_t rows;
  uint64_t cols;
  double offload_ratio; /* share of the rows that is remote, 0 to 1; rounded up to whole tiles */
  dak_tier remote_tier; /* 0: DAK_TIER_HOST */
  uint32_t tile_rows;   /* 0: 64 */
} dak_tensor_spec;

/* Allocates and maps `count` (1 to 1024) tensors of one group, all or nothing; tensors[i] belongs to specs[i].
 * Memory is zero. `group` NULL means "default". */
DAK_API dak_code dak_tensors_allocate(dak_session* session, const char* group, const dak_tensor_spec* specs,
                                      size_t count, dak_tensor** tensors, dak_error* error);
/* Frees `count` (1 to 1024) tensors and gives memory that no tensor uses any more back to the node. All or nothing, but
 * memory must be unmapped before the daemon takes it: if the daemon then refuses or doesn't answer, tensors whose
 * memory was unmapped answer DAK_FAILED_PRECONDITION with reason UNMAPPED to all calls until they are freed again. */
DAK_API dak_code dak_tensors_free(dak_session* session, dak_tensor* const* tensors, size_t count, dak_error* error);

typedef struct dak_tensor_info {
  size_t struct_size;
  uint64_t tensor_id;
  const char* name;
  const char* group;
  dak_data_type data_type;
  uint64_t rows;
  uint64_t cols;
  uint64_t bytes;
  uint32_t part_count; /* 1 or 2 */
  int32_t read_only;
} dak_tensor_info;
DAK_API dak_code dak_tensor_get_info(const dak_tensor* tensor, dak_tensor_info* info, dak_error* error);

typedef struct dak_tensor_part {
  size_t struct_size;
  dak_tier tier;
  uint64_t first_row;
  uint64_t rows;
  uint64_t bytes;
  uint64_t device_address; /* what kernels use; on the emulated device a pointer of this process */
  void* host_pointer;      /* where the CPU reaches the same bytes; NULL if it can't */
  const void* tensor_map;  /* 128 bytes, 64-byte aligned, rebased to device_address; NULL if the part has none */
} dak_tensor_part;
/* Part `index` of the tensor, in order of rows. */
DAK_API dak_code dak_tensor_get_part(const dak_tensor* tensor, uint32_t index, dak_tensor_part* part, dak_error* error);

/* Copies `bytes` bytes, from byte `offset_bytes` of the tensor on (row-major, as if it weren't split), and waits. */
DAK_API dak_code dak_tensor_upload(dak_tensor* tensor, uint64_t offset_bytes, const void* source, uint64_t bytes,
                                   dak_error* error);
DAK_API dak_code dak_tensor_download(const dak_tensor* tensor, uint64_t offset_bytes, void* target, uint64_t bytes,
                                     dak_error* error);
/* Checks that part `index`'s rebased descriptor equals one encoded afresh at its address. DAK_DATA_LOSS if not. */
DAK_API dak_code dak_tensor_verify_map(const dak_tensor* tensor, uint32_t index, dak_error* error);

/* Seals a group under a name and a fingerprint; its tensors turn read-only here and outlive the session. Nothing may
 * write to them while this runs. Their tensors' group keeps its name in this session; `group` NULL means "default". */
DAK_API dak_code dak_publish(dak_session* session, const char* group, const char* publication, const char* fingerprint,
                             dak_error* error);
/* Maps a publication read-only. *tensors is an array of *count, owned by the session. fingerprint NULL: any. */
DAK_API dak_code dak_attach(dak_session* session, const char* publication, const char* fingerprint,
                            dak_tensor* const** tensors, size_t* count, dak_error* error);
/* Unmaps a publication; its tensors here become invalid, also if the daemon doesn't answer: then detach again. */
DAK_API dak_code dak_detach(dak_session* session, const char* publication, dak_error* error);
/* Removes a publication from the node; memory goes when its last session detaches. */
DAK_API dak_code dak_withdraw(dak_session* session, const char* publication, dak_error* error);
/* A tensor of this session by name; DAK_NOT_FOUND. Attached tensors have their publication's name as group. */
DAK_API dak_code dak_tensor_find(dak_session* session, const char* group, const char* name, dak_tensor** tensor,
                                 dak_error* error);

/* One operation of a pass, for planning. */
typedef struct dak_operation {
  size_t struct_size;
  const char* name;
  uint64_t bytes; /* read in one pass */
  double flops;
  double min_ratio;
  double max_ratio;      /* 0 with min_ratio 0: 1 */
  uint64_t batch;        /* of a matrix product: rows of x, for the machine's rates by batch; 0: none, or unknown */
  uint64_t stored_bytes; /* what the HBM budget counts; 0: as many as are read */
  uint64_t rows;         /* a divisor of the bytes stored: plan whole tiles; 0: between any bytes */
  uint32_t tile_rows;    /* 0: 64 */
  uint32_t is_kv_cache;  /* 1: read by attention, not by a matrix product */
} dak_operation;
/* Plans a pass and puts the plan in force for this session. ratios has `count` entries. predicted_s may be NULL. */
DAK_API dak_code dak_plan(dak_session* session, const dak_operation* operations, size_t count,
                          uint64_t hbm_budget_bytes, double* ratios, double* predicted_s, dak_error* error);

/* What dak_gemm does with the sums: y = activation(x W^T + bias) + residual, in fp32, rounded once. SwiGLU takes gate
 * and up projection from one W whose rows come in blocks: eight of the gate projection, the same eight of the up
 * projection, and so on. y is [batch, n / 2] then, silu(gate) * up; n and the rows in HBM must be multiples of 16. */
typedef enum dak_activation {
  DAK_ACTIVATION_NONE = 0,
  DAK_ACTIVATION_SWIGLU = 1,
  DAK_ACTIVATION_LIMIT = 0x7fffffff
} dak_activation;

typedef struct dak_gemm_args {
  size_t struct_size;
  const dak_tensor* weights; /* W [n, k], bf16 or f16 */
  uint64_t x;                /* [batch, k], W's type, a device address in HBM */
  uint64_t y;                /* [batch, n], or as the activation says; W's type, a device address in HBM */
  uint32_t batch;            /* 1 to 8192; above 256, columns up to 131,072 where rows are remote */
  void* stream;              /* CUstream; ignored on the emulated device */
  uint64_t bias;             /* [n], W's type, a device address; 0: none */
  uint64_t residual;         /* y's shape and type, a device address; may be y; 0: none */
  dak_activation activation;
} dak_gemm_args;
/* y = x W^T within the session's window. x and y are multiples of 16; y overlaps neither x nor W nor published memory.
 * Operations of one session must be ordered among themselves: one stream, or events. On cuda it is enqueued and the
 * call returns; on the emulated device it has run, in the time that the emulated link takes. DAK_INVALID_ARGUMENT names
 * what isn't supported. */
DAK_API dak_code dak_gemm(dak_session* session, const dak_gemm_args* args, dak_error* error);
/* Waits for everything enqueued on `stream`. A fault of a kernel shows here. */
DAK_API dak_code dak_synchronize(dak_session* session, void* stream, dak_error* error);

#ifdef __cplusplus
}
#endif

#include "dak/attention.h" /* decode attention */
#include "dak/migration.h" /* moves, suspension */

#endif /* DAK_DAK_H_ */
