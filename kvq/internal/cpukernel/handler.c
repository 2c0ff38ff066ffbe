//go:build linux && cgo

// What XLA calls for attention. The inputs of a call are written down in order by Attend (call.go).

#include "handler.h"

#include "attend.h"
#include "ffi.h"
#include "side.h"

// The first input: the shape, by shape.numbers (call.go).

typedef struct {
  int32_t rows, heads, queries, blocks, exact, sliding_window, query_type, cache_type;
  float scale, soft_cap;
  int32_t slopes;
  kvq_side key, value;
} kvq_call;

// alone is how many codes a call reads at most that a thread attends to by itself: below it a second
// one comes too late to be of use.
enum { alone = 1 << 20 };

static void piece(const void *a, int64_t i, void *scratch) { kvq_attend_piece(a, i, scratch); }
static void merge(const void *a, void *scratch) { kvq_attend_merge(a, scratch); }

// XLA's own functions of the interface are C++; nothing of theirs is thrown through this one.
void *kvq_attend_handler(void *frame) {
  const ffi_call *call = frame;
  if (kvq_asked(call)) return NULL;
  ffi_buffer **in = call->arguments.buffers;
  const kvq_call *s = (*in++)->data;
  const int64_t inputs = 12 + s->key.zeros + s->key.tokens + s->value.zeros + s->value.tokens + s->slopes;
  void *error = kvq_counted(call, "kvq_attend", inputs, 1);
  if (error != NULL) return error;
  kvq_attention a = {
      .rows = s->rows, .heads = s->heads, .queries = s->queries, .blocks = s->blocks, .exact = s->exact,
      .sliding_window = s->sliding_window, .query_type = s->query_type, .cache_type = s->cache_type,
      .scale = s->scale, .soft_cap = s->soft_cap,
  };
  a.query = (*in++)->data;
  a.position = (*in++)->data;
  a.used = (*in++)->data;
  a.code_index = (*in++)->data;
  a.key = kvq_side_of(&s->key, &in);
  a.value = kvq_side_of(&s->value, &in);
  a.exact_index = (*in++)->data;
  a.exact_keys = (*in++)->data;
  a.exact_values = (*in++)->data;
  if (s->slopes) a.slopes = (*in++)->data;
  a.out = call->results.buffers[0]->data;

  int64_t pieces, scratch;
  kvq_attend_plan(&a, &pieces, &scratch);
  const int shared = pieces > 1 && kvq_attend_work(&a) > alone;
  return kvq_share(call, "kvq_attend", &a, sizeof a, pieces, shared, (size_t)scratch, 0, piece, merge);
}
