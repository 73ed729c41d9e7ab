// The C ABI of attention.
#include "client/src/c_api.h"
#include "dak/attention.h"

using namespace dak::client;

dak_code dak_attention(dak_session* session, const dak_attention_args* args, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    dak_attention_args given{};
    DAK_RETURN_IF_ERROR(ReadStruct("args", args, &given));
    AttentionCall call{.kv = Unwrap(given.kv), .shape = {}, .operands = {}, .stream = given.stream};
    call.shape.batch = given.batch;
    call.shape.heads = given.heads;
    call.shape.kv_heads = given.kv_heads;
    call.shape.head_dim = given.head_dim;
    call.shape.page_tokens = given.page_tokens;
    call.shape.max_pages = given.max_pages;
    call.shape.scale = given.scale;
    call.operands.q = given.q;
    call.operands.out = given.out;
    call.operands.block_table = given.block_table;
    call.operands.lengths = given.lengths;
    call.operands.remote_counts = given.remote_counts;
    call.operands.context_ready = given.context_ready != 0;
    return Unwrap(session)->Attention(call);
  });
}
