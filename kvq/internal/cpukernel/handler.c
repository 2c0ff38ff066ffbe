//go:build linux && cgo

// What XLA calls. The inputs of a call are written down in order by Attend (call.go).

#include "handler.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "attend.h"

// The parts that are needed of XLA's interface for such functions (xla/ffi/api/c_api.h, version
// 0.x, which only grows at the ends).

typedef struct {
  size_t struct_size;
  void *extension_start;
  int dtype;
  void *data;
  int64_t rank;
  int64_t *dims;
} ffi_buffer;

typedef struct {
  size_t struct_size;
  void *extension_start;
  int64_t size;
  int *types;
  ffi_buffer **buffers;
} ffi_list;

typedef struct {
  size_t struct_size;
  void *extension_start;
  int major, minor;
} ffi_version;

typedef struct {
  size_t struct_size;
  ffi_version version;  // out
  uint32_t traits;      // out
} ffi_metadata;

typedef struct {
  size_t struct_size;
  int type;
  void *next;
  ffi_metadata *metadata;  // where type is asks_metadata
} ffi_extension;

enum { asks_metadata = 1, internal_error = 13 };

typedef struct {
  size_t struct_size;
  void *extension_start;
  const char *message;
  int code;
} ffi_error_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *error;
} ffi_destroy_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *context;
  void (*task)(void *);
  void *data;
} ffi_schedule_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *context;
  int64_t *threads;  // out
} ffi_threads_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  ffi_version version;
  const void *internal;
  void *(*error_create)(ffi_error_args *);
  void *error_message;
  void (*error_destroy)(ffi_destroy_args *);
  void *between[8];  // Handler_Register to DeviceMemory_Free
  void *(*schedule)(ffi_schedule_args *);
  void *(*threads)(ffi_threads_args *);
} ffi_api;

typedef struct {
  size_t struct_size;
  ffi_extension *extension_start;
  const ffi_api *api;
  void *context;
  int stage;
  ffi_list arguments, results;
} ffi_call;

// The first input: the shape, by shape.numbers (call.go).

typedef struct {
  int32_t bits, planes, width[2], word_bits, parts, rows, words_of_part;
  int32_t group, per_channel, groups, scale_type, rotate, dim, zeros, tokens;
} kvq_side;

typedef struct {
  int32_t rows, heads, queries, blocks, exact, sliding_window, query_type, cache_type;
  float scale, soft_cap;
  int32_t slopes;
  kvq_side key, value;
} kvq_call;

// side_of takes the arrays of keys or values off the inputs.
static kvq_codes side_of(const kvq_side *s, ffi_buffer ***in) {
  kvq_codes c = {
      .bits = s->bits, .planes = s->planes, .width = {s->width[0], s->width[1]},
      .word_bits = s->word_bits, .parts = s->parts, .rows = s->rows, .words_of_part = s->words_of_part,
      .group = s->group, .per_channel = s->per_channel, .groups = s->groups,
      .scale_type = s->scale_type, .rotate = s->rotate, .dim = s->dim,
  };
  c.codes = (*(*in)++)->data;
  c.scales = (*(*in)++)->data;
  if (s->zeros) c.zeros = (*(*in)++)->data;
  if (s->tokens) c.tokens = (*(*in)++)->data;
  return c;
}

// work is a call that threads share: whoever comes takes the next piece. Who uses it last frees it,
// which may be a thread that came when all was done.
typedef struct {
  kvq_attention a;
  void *scratch;
  int64_t pieces;
  atomic_llong next, done;
  atomic_int users;
} work;

enum { line = 64 };  // bytes of a cache line, at which scratch begins

static size_t up_to_line(size_t n) { return (n + line - 1) / line * line; }

static void leave(work *w) {
  if (atomic_fetch_sub(&w->users, 1) == 1) free(w);
}

static void take_pieces(work *w) {
  for (int64_t i; (i = atomic_fetch_add(&w->next, 1)) < w->pieces;) {
    kvq_attend_piece(&w->a, i, w->scratch);
    atomic_fetch_add(&w->done, 1);
  }
}

static void help(void *data) {
  take_pieces(data);
  leave(data);
}

// alone is how many codes a call reads at most that a thread attends to by itself: below it a second
// one comes too late to be of use.
enum { alone = 1 << 20 };

// call_helpers has other threads of XLA's pool come. There may be none of them, or they come when
// all is done: nobody waits for one that has not taken a piece.
static void call_helpers(const ffi_call *call, work *w) {
  int64_t threads = 0;
  ffi_threads_args ask = {.struct_size = sizeof ask, .context = call->context, .threads = &threads};
  void *error = call->api->threads(&ask);
  for (int64_t i = 1; error == NULL && i < threads && i < w->pieces; i++) {
    ffi_schedule_args args = {.struct_size = sizeof args, .context = call->context, .task = help, .data = w};
    atomic_fetch_add(&w->users, 1);
    error = call->api->schedule(&args);
    if (error != NULL) leave(w);
  }
  if (error != NULL) {
    ffi_destroy_args destroy = {.struct_size = sizeof destroy, .error = error};
    call->api->error_destroy(&destroy);
  }
}

static void *fail(const ffi_call *call, const char *message) {
  ffi_error_args args = {.struct_size = sizeof args, .message = message, .code = internal_error};
  return call->api->error_create(&args);
}

// XLA's own functions of the interface are C++; nothing of theirs is thrown through this one.
void *kvq_attend_handler(void *frame) {
  const ffi_call *call = frame;
  ffi_extension *e = call->extension_start;
  if (e != NULL && e->type == asks_metadata) {
    e->metadata->version.major = call->api->version.major;
    e->metadata->version.minor = call->api->version.minor;
    e->metadata->traits = 0;
    return NULL;
  }
  ffi_buffer **in = call->arguments.buffers;
  const kvq_call *s = (*in++)->data;
  int64_t inputs = 12 + s->key.zeros + s->key.tokens + s->value.zeros + s->value.tokens + s->slopes;
  if (call->arguments.size != inputs || call->results.size != 1) {
    char message[99];
    snprintf(message, sizeof message, "kvq_attend: want %lld inputs and 1 result, got %lld and %lld", (long long)inputs,
             (long long)call->arguments.size, (long long)call->results.size);
    return fail(call, message);
  }
  kvq_attention a = {
      .rows = s->rows, .heads = s->heads, .queries = s->queries, .blocks = s->blocks, .exact = s->exact,
      .sliding_window = s->sliding_window, .query_type = s->query_type, .cache_type = s->cache_type,
      .scale = s->scale, .soft_cap = s->soft_cap,
  };
  a.query = (*in++)->data;
  a.position = (*in++)->data;
  a.used = (*in++)->data;
  a.code_index = (*in++)->data;
  a.key = side_of(&s->key, &in);
  a.value = side_of(&s->value, &in);
  a.exact_index = (*in++)->data;
  a.exact_keys = (*in++)->data;
  a.exact_values = (*in++)->data;
  if (s->slopes) a.slopes = (*in++)->data;
  a.out = call->results.buffers[0]->data;

  int64_t pieces, scratch;
  kvq_attend_plan(&a, &pieces, &scratch);
  size_t head = up_to_line(sizeof(work));
  work *w = aligned_alloc(line, head + up_to_line(scratch));
  if (w == NULL) return fail(call, "kvq_attend: no memory");
  w->a = a;
  w->scratch = (char *)w + head;
  w->pieces = pieces;
  atomic_init(&w->next, 0);
  atomic_init(&w->done, 0);
  atomic_init(&w->users, 1);
  if (pieces > 1 && kvq_attend_work(&a) > alone) call_helpers(call, w);
  take_pieces(w);
  for (int i = 0; atomic_load(&w->done) < pieces; i++) {
    if (i > 1000) sched_yield();
  }
  kvq_attend_merge(&w->a, w->scratch);
  leave(w);
  return NULL;
}
