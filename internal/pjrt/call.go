package pjrt

/*
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The parts that are needed of PJRT's C interface (xla/pjrt/c/pjrt_c_api.h, version 0.115). It only
// grows at the ends: the places of these entries are fixed for major version 0.

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *error;
  const char *message;  // out
  size_t message_size;  // out
} error_message_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *error;
} error_destroy_args;

// text_args are PJRT_Client_PlatformName_Args and PJRT_DeviceDescription_Kind_Args.
typedef struct {
  size_t struct_size;
  void *extension_start;
  void *of;
  const char *text;  // out
  size_t text_size;  // out
} text_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *device;
  void *description;  // out
} description_args;

enum { value_string = 0, value_int64 = 1 };  // of PJRT_NamedValue_Type

typedef struct {
  size_t struct_size;
  void *extension_start;
  const char *name;
  size_t name_size;
  int type;
  union {
    const char *text;
    int64_t number;
  } value;
  size_t value_size;
} named_value;

typedef struct {
  size_t count;
  const named_value *first;
} named_values;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *description;
  size_t count;              // out
  const named_value *first;  // out
} attributes_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  const named_value *first;  // out
  size_t count;              // out
} plugin_attributes_args;

typedef struct {
  size_t struct_size;
  void *extension_start;
  void *device;
  int64_t bytes_in_use;
  int64_t peak_bytes_in_use;
  bool peak_bytes_in_use_is_set;
  int64_t num_allocs;
  bool num_allocs_is_set;
  int64_t largest_alloc_size;
  bool largest_alloc_size_is_set;
  int64_t bytes_limit;
  bool bytes_limit_is_set;
  int64_t rest[12];  // figures that are not used here; the plugin fills them where it has them
} memory_stats_args;

typedef void *(*entry)(void *);

typedef struct {
  size_t struct_size;
  void *extension_start;
  struct {
    size_t struct_size;
    void *extension_start;
    int major, minor;
  } version;
  void (*error_destroy)(error_destroy_args *);
  void (*error_message)(error_message_args *);
  entry entries[];  // from PJRT_Error_GetCode on
} pjrt_api;

// Places in entries.
enum {
  plugin_attributes = 2,
  platform_name = 10,
  attributes = 23,
  kind = 24,
  get_description = 27,
  memory_stats = 32,
};

// text_of_error is why a call failed, to be freed, or NULL. It frees the error.
static char *text_of_error(const pjrt_api *api, void *error) {
  if (error == NULL) return NULL;
  error_message_args m = {.struct_size = sizeof m, .error = error};
  api->error_message(&m);
  char *text = strndup(m.message, m.message_size);
  error_destroy_args d = {.struct_size = sizeof d, .error = error};
  api->error_destroy(&d);
  return text;
}

// call makes a call; it returns why it failed, to be freed, or NULL.
static char *call(const pjrt_api *api, int place, void *args) {
  if (api->version.major != 0 ||
      api->struct_size < offsetof(pjrt_api, entries) + (place + 1) * sizeof(entry) ||
      api->entries[place] == NULL) {
    return strdup("the plugin's PJRT has no such call");
  }
  return text_of_error(api, api->entries[place](args));
}

static char *get_text(const pjrt_api *api, int place, void *of, text_args *args) {
  *args = (text_args){.struct_size = sizeof *args, .of = of};
  return call(api, place, args);
}

static char *describe(const pjrt_api *api, void *device, void **description) {
  description_args args = {.struct_size = sizeof args, .device = device};
  char *failure = call(api, get_description, &args);
  *description = args.description;
  return failure;
}

static char *get_attributes(const pjrt_api *api, void *description, named_values *out) {
  attributes_args args = {.struct_size = sizeof args, .description = description};
  char *failure = call(api, attributes, &args);
  *out = (named_values){args.count, args.first};
  return failure;
}

static char *get_plugin_attributes(const pjrt_api *api, named_values *out) {
  plugin_attributes_args args = {.struct_size = sizeof args};
  char *failure = call(api, plugin_attributes, &args);
  *out = (named_values){args.count, args.first};
  return failure;
}

// value is the i-th one. Their distance is the size that the plugin says they have.
static const named_value *value(const named_values *list, size_t i) {
  return (const named_value *)((const char *)list->first + i * list->first->struct_size);
}

static const char *text_of(const named_value *v) { return v->value.text; }
static int64_t number_of(const named_value *v) { return v->value.number; }

static char *get_memory_stats(const pjrt_api *api, void *device, memory_stats_args *args) {
  *args = (memory_stats_args){.struct_size = sizeof *args, .device = device};
  return call(api, memory_stats, args);
}
*/
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// Platform returns the name of the device's platform, such as "cpu" or "cuda".
func (d Device) Platform() (string, error) { return d.text(C.platform_name, d.client) }

// Kind returns what the device is, such as "NVIDIA H100 80GB HBM3".
func (d Device) Kind() (string, error) {
	description, err := d.description()
	if err != nil {
		return "", err
	}
	return d.text(C.kind, description)
}

// Attributes returns the device's attributes that are a string or an int64. XLA's GPU client has
// "compute_capability", "core_count" and "device_vendor" among them
// (openxla/xla, xla/pjrt/gpu/se_gpu_pjrt_client.cc); its CPU client has none.
func (d Device) Attributes() (map[string]any, error) {
	description, err := d.description()
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(d.backend)
	var list C.named_values
	if err := failure(C.get_attributes((*C.pjrt_api)(d.api), description, &list)); err != nil {
		return nil, err
	}
	return values(&list), nil
}

// pluginAttributes returns the attributes of the plugin itself. Every plugin has some, so that
// tests can read a list of them where there is no GPU.
func (d Device) pluginAttributes() (map[string]any, error) {
	defer runtime.KeepAlive(d.backend)
	var list C.named_values
	if err := failure(C.get_plugin_attributes((*C.pjrt_api)(d.api), &list)); err != nil {
		return nil, err
	}
	return values(&list), nil
}

// values are those of a list that are a string or an int64.
func values(list *C.named_values) map[string]any {
	all := make(map[string]any, int(list.count))
	for i := range list.count {
		v := C.value(list, i)
		name := C.GoStringN(v.name, C.int(v.name_size))
		switch v._type {
		case C.value_string:
			all[name] = C.GoStringN(C.text_of(v), C.int(v.value_size))
		case C.value_int64:
			all[name] = int64(C.number_of(v))
		}
	}
	return all
}

// MemoryStats asks XLA's allocator. XLA's CPU client answers that it keeps no such figures.
func (d Device) MemoryStats() (MemoryStats, error) {
	defer runtime.KeepAlive(d.backend)
	var args C.memory_stats_args
	if err := failure(C.get_memory_stats((*C.pjrt_api)(d.api), d.device, &args)); err != nil {
		return MemoryStats{}, err
	}
	stats := MemoryStats{InUse: int64(args.bytes_in_use)}
	if args.peak_bytes_in_use_is_set {
		stats.Peak = int64(args.peak_bytes_in_use)
	}
	if args.bytes_limit_is_set {
		stats.Limit = int64(args.bytes_limit)
	}
	return stats, nil
}

// description is PJRT's description of the device, which lives as long as the client.
func (d Device) description() (unsafe.Pointer, error) {
	defer runtime.KeepAlive(d.backend)
	var description unsafe.Pointer
	err := failure(C.describe((*C.pjrt_api)(d.api), d.device, &description))
	return description, err
}

// text makes a call that returns a text.
func (d Device) text(place C.int, of unsafe.Pointer) (string, error) {
	defer runtime.KeepAlive(d.backend)
	var args C.text_args
	if err := failure(C.get_text((*C.pjrt_api)(d.api), place, of, &args)); err != nil {
		return "", err
	}
	return C.GoStringN(args.text, C.int(args.text_size)), nil
}

// failed is the error that a call returned, nil for none.
func (d Device) failed(err unsafe.Pointer) error {
	return failure(C.text_of_error((*C.pjrt_api)(d.api), err))
}

// failure is the error of a message, which it frees.
func failure(message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}
