#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// Places in PJRT_Api, in words.
enum {
  error_destroy = 5,
  client_compile = 25,
  executable_destroy = 45,
  executable_serialize = 54,
  get_executable = 56,
  deserialize_and_load = 61,
  words = 62,  // that the table has to have
};

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *it;
} one_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *loaded;
  void *executable;  // out
} get_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *client;
  const char *bytes;
  size_t size;
  void *loaded;         // out
  const char *options;  // NULL: those that the bytes hold
  size_t options_size;
} load_args;

typedef void *(*entry)(void *);

static void *const *plugin;  // the table of the plugin

// failed returns 1 for an error, which it frees.
static int failed(void *error) {
  if (error == NULL) return 0;
  one_args d = {.struct_size = sizeof d, .it = error};
  ((void (*)(void *))plugin[error_destroy])(&d);
  return 1;
}

static int call(int place, void *args) { return !failed(((entry)plugin[place])(args)); }

static void *replaced_compile(kvq_compile_args *args) { return kvqCompile(args); }

void *kvq_table(const void *api) {
  size_t size = *(const size_t *)api;
  if (size < words * sizeof(void *)) return NULL;
  void **copy = malloc(size);
  if (copy == NULL) return NULL;
  memcpy(copy, api, size);
  plugin = (void *const *)api;
  copy[client_compile] = (void *)replaced_compile;
  return copy;
}

void *kvq_compile(kvq_compile_args *args) { return ((entry)plugin[client_compile])(args); }

int kvq_serialize(void *loaded, kvq_serialize_args *args) {
  get_args get = {.struct_size = sizeof get, .loaded = loaded};
  if (!call(get_executable, &get)) return 0;
  memset(args, 0, sizeof *args);
  args->struct_size = sizeof *args;
  args->executable = get.executable;
  int ok = call(executable_serialize, args);
  one_args d = {.struct_size = sizeof d, .it = get.executable};
  call(executable_destroy, &d);
  return ok;
}

void kvq_serialized_free(kvq_serialize_args *args) { args->free_owner(args->owner); }

void *kvq_deserialize(void *client, const void *bytes, size_t size) {
  load_args load = {.struct_size = sizeof load, .client = client, .bytes = bytes, .size = size};
  return call(deserialize_and_load, &load) ? load.loaded : NULL;
}
