#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// Places in PJRT_Api, in words.
enum {
  error_destroy = 5,
  platform_name = 17,
  client_compile = 25,
  executable_destroy = 45,
  executable_serialize = 54,
  loaded_destroy = 55,
  get_executable = 56,
  deserialize_and_load = 61,
  memory_stats = 101,
  words = 102,  // that the table has to have
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

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *executable;
  int64_t figures[KVQ_FIGURES];  // out; the table's version may end earlier
} stats_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *client;
  const char *name;  // out
  size_t size;       // out
} name_args;

typedef void *(*entry)(void *);

static void *const *plugin;  // the table of the plugin

// failed returns 1 for an error, which it frees.
static int failed(void *error) {
  if (error == NULL) return 0;
  one_args d = {.struct_size = sizeof d, .it = error};
  ((void (*)(void *))plugin[error_destroy])(&d);
  return 1;
}

static void *pass(int place, void *args) { return ((entry)plugin[place])(args); }

static int call(int place, void *args) { return !failed(pass(place, args)); }

static void *replaced_compile(kvq_compile_args *args) { return kvqCompile(args); }

static void *replaced_get_executable(get_args *args) {
  void *error = pass(get_executable, args);
  if (error == NULL) kvqNamed(args->loaded, args->executable);
  return error;
}

static void *replaced_stats(stats_args *args) {
  size_t before = offsetof(stats_args, figures);
  if (args->struct_size >= before) {
    size_t count = (args->struct_size - before) / sizeof(int64_t);
    if (count > KVQ_FIGURES) count = KVQ_FIGURES;
    if (kvqFigures(args->executable, args->figures, count)) return NULL;
  }
  return pass(memory_stats, args);
}

static void *replaced_executable_destroy(one_args *args) {
  kvqGone(args->it);
  return pass(executable_destroy, args);
}

static void *replaced_loaded_destroy(one_args *args) {
  kvqGone(args->it);
  return pass(loaded_destroy, args);
}

int kvq_minor(const void *api) {
  const struct {
    size_t struct_size;
    void *extension_start;
    size_t version_size;
    void *version_extension;
    int major, minor;
  } *head = api;
  return head->major == 0 ? head->minor : -1;
}

int kvq_on_cpu(void *client) {
  name_args a = {.struct_size = sizeof a, .client = client};
  return call(platform_name, &a) && a.size == 3 && memcmp(a.name, "cpu", 3) == 0;
}

void *kvq_table(const void *api) {
  size_t size = *(const size_t *)api;
  if (size < words * sizeof(void *)) return NULL;
  void **copy = malloc(size);
  if (copy == NULL) return NULL;
  memcpy(copy, api, size);
  plugin = (void *const *)api;
  copy[client_compile] = (void *)replaced_compile;
  copy[get_executable] = (void *)replaced_get_executable;
  copy[memory_stats] = (void *)replaced_stats;
  copy[executable_destroy] = (void *)replaced_executable_destroy;
  copy[loaded_destroy] = (void *)replaced_loaded_destroy;
  return copy;
}

void *kvq_compile(kvq_compile_args *args) { return pass(client_compile, args); }

// of_loaded makes a call about the PJRT_Executable of a PJRT_LoadedExecutable, whose place in the
// arguments is given.
static int of_loaded(void *loaded, int place, void *args, void **executable) {
  get_args get = {.struct_size = sizeof get, .loaded = loaded};
  if (!call(get_executable, &get)) return 0;
  *executable = get.executable;
  int ok = call(place, args);
  one_args d = {.struct_size = sizeof d, .it = get.executable};
  call(executable_destroy, &d);
  return ok;
}

int kvq_serialize(void *loaded, kvq_serialize_args *args) {
  memset(args, 0, sizeof *args);
  args->struct_size = sizeof *args;
  return of_loaded(loaded, executable_serialize, args, (void **)&args->executable);
}

int kvq_figures(void *loaded, int64_t *figures) {
  stats_args args = {.struct_size = sizeof args};
  int ok = of_loaded(loaded, memory_stats, &args, &args.executable);
  memcpy(figures, args.figures, sizeof args.figures);
  return ok;
}

void kvq_serialized_free(kvq_serialize_args *args) { args->free_owner(args->owner); }

void *kvq_deserialize(void *client, const void *bytes, size_t size) {
  load_args load = {.struct_size = sizeof load, .client = client, .bytes = bytes, .size = size};
  return call(deserialize_and_load, &load) ? load.loaded : NULL;
}
