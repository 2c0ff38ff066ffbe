#pragma once

// The parts that are needed of PJRT's C interface (xla/pjrt/c/pjrt_c_api.h, version 0.115). It only
// grows at the ends: the places of these entries and fields are fixed for major version 0.
#include <stddef.h>
#include <stdint.h>

// Figures of PJRT_Executable_GetCompiledMemoryStats, all int64.
#define KVQ_FIGURES 15

typedef struct {
  size_t struct_size;
  void *extension_start;
  char *code;
  size_t code_size;
  const char *format;
  size_t format_size;
} kvq_program;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *client;
  const kvq_program *program;
  const char *options;
  size_t options_size;
  void *executable;  // out
} kvq_compile_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  const void *executable;
  const char *bytes;  // out
  size_t size;        // out
  void *owner;        // out: of bytes
  void (*free_owner)(void *);
} kvq_serialize_args;

// kvq_table returns a copy of a plugin's table in which compiling is kvqCompile, and a graph's
// figures are those that kvqFigures has where it has some; or NULL where the table is too old to
// have what that needs.
void *kvq_table(const void *api);

// kvq_minor is the minor version of the table, 0.x; -1 for another major version.
int kvq_minor(const void *api);

// kvq_on_cpu returns 1 for XLA on the CPU.
int kvq_on_cpu(void *client);

// kvq_compile calls the plugin's own function. It returns PJRT's error or NULL.
void *kvq_compile(kvq_compile_args *args);

// kvq_serialize sets bytes and size of what was compiled, to be freed with kvq_serialized_free, or
// returns 0 where XLA cannot.
int kvq_serialize(void *loaded, kvq_serialize_args *args);
void kvq_serialized_free(kvq_serialize_args *args);

// kvq_figures asks XLA for the figures of what was compiled, or returns 0 where there are none.
int kvq_figures(void *loaded, int64_t *figures);

// kvq_deserialize returns what was compiled, or NULL where XLA rejects the bytes.
void *kvq_deserialize(void *client, const void *bytes, size_t size);
