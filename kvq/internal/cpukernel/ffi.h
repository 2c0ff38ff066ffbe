// XLA's interface for functions that its programs call, as far as it is needed here
// (xla/ffi/api/c_api.h, version 0.x, which only grows at the ends).
#pragma once
#include <stddef.h>
#include <stdint.h>

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

// kvq_asked answers where XLA asks for the interface's version, and tells whether it did.
int kvq_asked(const ffi_call *call);
// kvq_fail makes an error of XLA's with a text.
void *kvq_fail(const ffi_call *call, const char *message);
// kvq_counted is NULL where a call has so many inputs and results, else an error of XLA's.
void *kvq_counted(const ffi_call *call, const char *name, int64_t inputs, int64_t results);

// A piece of a task that threads share. What a thread has for itself begins at scratch.
typedef void (*kvq_piece)(const void *task, int64_t piece, void *scratch);

// kvq_share does all pieces of a task, of size bytes, with the other threads of XLA's pool where
// shared is not 0. It is for scratch memory in common: common bytes, which end is called with behind
// all pieces (NULL: nothing is left to do); or, where common is 0, own bytes a thread. It returns
// NULL, or an error of XLA's. name is for its text.
void *kvq_share(const ffi_call *call, const char *name, const void *task, size_t size, int64_t pieces, int shared, size_t common,
                size_t own, kvq_piece piece, void (*end)(const void *task, void *scratch));
