/* Decode attention over a paged KV cache that is split between tiers. Part of dak/dak.h, whose rules hold here.
 *
 * Concept. A tensor holds the cache's pages, a row each: its first rows lie in HBM, the others in a remote tier. What a
 * row holds is [kv_heads, 2, page_tokens, head_dim], keys before values. Per sequence, a list of pages names first
 * those in the remote tier, then those in HBM, each by its number among the tensor's rows of that tier, from 0. All
 * lists are on the device and read anew by every call, so that CUDA graphs may be replayed while contexts grow
 * (docs/kernels-attention.md).
 */
#ifndef DAK_ATTENTION_H_
#define DAK_ATTENTION_H_

#include "dak/dak.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dak_attention_args {
  size_t struct_size;
  const dak_tensor* kv;   /* [pages, kv_heads * 2 * page_tokens * head_dim], bf16 or f16 */
  uint64_t q;             /* [batch, heads, head_dim], kv's type, a device address in HBM */
  uint64_t out;           /* the same, to be written */
  uint64_t block_table;   /* int32 [batch, max_pages] */
  uint64_t lengths;       /* int32 [batch], tokens of each sequence; 0: its output is zeros */
  uint64_t remote_counts; /* int32 [batch], how many of its pages are remote; ignored if no row of kv is */
  uint32_t batch;         /* 1 to 512 */
  uint32_t heads;         /* of queries, 1 to 64 */
  uint32_t kv_heads;      /* a divisor of heads */
  uint32_t head_dim;      /* 64, 80, 96 or 128 */
  uint32_t page_tokens;   /* 16 or 64 */
  uint32_t max_pages;     /* of a sequence; up to 131072 tokens */
  float scale;            /* of q k^T, as 1 / sqrt(head_dim) */
  int32_t context_ready;  /* not 0: the launch before in the stream writes no more of lists and cache than each
                             sequence's last token */
  void* stream;           /* CUstream; ignored on the emulated device */
} dak_attention_args;
/* out = softmax(scale q K^T) V, a token a sequence, within the session's window. q and out are multiples of 16, lists
 * of 4; out overlaps neither q nor kv nor published memory. Order, errors and the emulated device are as for dak_gemm.
 */
DAK_API dak_code dak_attention(dak_session* session, const dak_attention_args* args, dak_error* error);

#ifdef __cplusplus
}
#endif

#endif /* DAK_ATTENTION_H_ */
