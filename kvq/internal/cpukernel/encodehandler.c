//go:build linux && cgo

// What XLA calls for coding. The inputs and results of a call are written down in order by Encode
// (encode.go).

#include "encode.h"
#include "ffi.h"
#include "handler.h"
#include "side.h"

// The first input, by encoding.numbers (encode.go).
typedef struct {
  int32_t rows, heads, tokens, all, keys, cuts;
  float first, step;
  int32_t valid, factor;
  kvq_side to;
} encode_call;

// alone is how many numbers a call codes at most that a thread codes by itself.
enum { alone = 1 << 14 };

static void piece(const void *e, int64_t i, void *scratch) { kvq_encode_piece(e, i, scratch); }

void *kvq_encode_handler(void *frame) {
  const ffi_call *call = frame;
  if (kvq_asked(call)) return NULL;
  ffi_buffer **in = call->arguments.buffers, **out = call->results.buffers;
  const encode_call *s = (*in++)->data;
  void *error = kvq_counted(call, "kvq_encode", 3 + s->valid + s->factor, 2 + s->to.zeros + s->to.tokens);
  if (error != NULL) return error;
  kvq_encoding e = {
      .rows = s->rows, .heads = s->heads, .tokens = s->tokens, .all = s->all,
      .keys = s->keys, .cuts = s->cuts, .first = s->first, .step = s->step,
  };
  e.x = (*in++)->data;
  e.from = (*in++)->data;
  if (s->valid) e.valid = (*in++)->data;
  if (s->factor) e.factor = (*in++)->data;
  e.to = kvq_side_of(&s->to, &out);

  int64_t pieces, scratch;
  kvq_encode_plan(&e, &pieces, &scratch);
  const int shared = pieces > 1 && (int64_t)e.rows * e.heads * e.tokens * e.to.dim > alone;
  return kvq_share(call, "kvq_encode", &e, sizeof e, pieces, shared, 0, (size_t)scratch, piece, NULL);
}
