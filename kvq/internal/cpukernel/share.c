//go:build linux && cgo

// What the functions that XLA calls have in common: threads that share a call, and errors.

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ffi.h"

// work is a call that threads share: whoever comes takes the next piece. Who uses it last frees it,
// which may be a thread that came when all was done.
typedef struct {
  kvq_piece piece;
  const void *task;
  char *scratch;
  size_t own;  // bytes of scratch a thread
  int64_t pieces;
  atomic_llong next, done;
  atomic_int users, came;
} work;

enum { line = 64 };  // bytes of a cache line, at which scratch begins

static size_t up_to_line(size_t n) { return (n + line - 1) / line * line; }

static void leave(work *w) {
  if (atomic_fetch_sub(&w->users, 1) == 1) free(w);
}

static void take_pieces(work *w) {
  char *scratch = w->scratch + w->own * (size_t)atomic_fetch_add(&w->came, 1);
  for (int64_t i; (i = atomic_fetch_add(&w->next, 1)) < w->pieces;) {
    w->piece(w->task, i, scratch);
    atomic_fetch_add(&w->done, 1);
  }
}

static void help(void *data) {
  take_pieces(data);
  leave(data);
}

static void destroy(const ffi_call *call, void *error) {
  if (error == NULL) return;
  ffi_destroy_args args = {.struct_size = sizeof args, .error = error};
  call->api->error_destroy(&args);
}

// helpers is how many other threads of XLA's pool there may be to help.
static int64_t helpers(const ffi_call *call, int64_t pieces) {
  int64_t threads = 0;
  ffi_threads_args ask = {.struct_size = sizeof ask, .context = call->context, .threads = &threads};
  void *error = call->api->threads(&ask);
  destroy(call, error);
  if (error != NULL || threads < 1) return 0;
  return (threads < pieces ? threads : pieces) - 1;
}

// call_helpers has other threads of XLA's pool come. There may be none of them, or they come when
// all is done: nobody waits for one that has not taken a piece.
static void call_helpers(const ffi_call *call, work *w, int64_t n) {
  void *error = NULL;
  for (int64_t i = 0; error == NULL && i < n; i++) {
    ffi_schedule_args args = {.struct_size = sizeof args, .context = call->context, .task = help, .data = w};
    atomic_fetch_add(&w->users, 1);
    error = call->api->schedule(&args);
    if (error != NULL) leave(w);
  }
  destroy(call, error);
}

void *kvq_share(const ffi_call *call, const char *name, const void *task, size_t size, int64_t pieces, int shared, size_t common,
                size_t own, kvq_piece piece, void (*end)(const void *task, void *scratch)) {
  const int64_t others = shared ? helpers(call, pieces) : 0;
  const size_t head = up_to_line(sizeof(work)), task_size = up_to_line(size), own_size = up_to_line(own);
  work *w = aligned_alloc(line, head + task_size + up_to_line(common) + own_size * (size_t)(others + 1));
  if (w == NULL) {
    char message[99];
    snprintf(message, sizeof message, "%s: no memory", name);
    return kvq_fail(call, message);
  }
  w->piece = piece;
  w->task = memcpy((char *)w + head, task, size);
  w->scratch = (char *)w + head + task_size;
  w->own = own_size;
  w->pieces = pieces;
  atomic_init(&w->next, 0);
  atomic_init(&w->done, 0);
  atomic_init(&w->users, 1);
  atomic_init(&w->came, 0);
  call_helpers(call, w, others);
  take_pieces(w);
  for (int i = 0; atomic_load(&w->done) < pieces; i++) {
    if (i > 1000) sched_yield();
  }
  if (end != NULL) end(w->task, w->scratch);
  leave(w);
  return NULL;
}

int kvq_asked(const ffi_call *call) {
  const ffi_extension *e = call->extension_start;
  if (e == NULL || e->type != asks_metadata) return 0;
  e->metadata->version.major = call->api->version.major;
  e->metadata->version.minor = call->api->version.minor;
  e->metadata->traits = 0;
  return 1;
}

void *kvq_fail(const ffi_call *call, const char *message) {
  ffi_error_args args = {.struct_size = sizeof args, .message = message, .code = internal_error};
  return call->api->error_create(&args);
}

void *kvq_counted(const ffi_call *call, const char *name, int64_t inputs, int64_t results) {
  if (call->arguments.size == inputs && call->results.size == results) return NULL;
  char message[99];
  snprintf(message, sizeof message, "%s: want %lld inputs and %lld result%s, got %lld and %lld", name, (long long)inputs,
           (long long)results, results == 1 ? "" : "s", (long long)call->arguments.size, (long long)call->results.size);
  return kvq_fail(call, message);
}
