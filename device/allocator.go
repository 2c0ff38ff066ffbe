package device

/*
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The parts that are needed of PJRT's C interface (xla/pjrt/c/pjrt_c_api.h, version 0.115). It only grows at the ends: the
// places of these entries are fixed for major version 0.

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
  int64_t rest[12];  // figures that are not used here; the callee fills them where it has them
} memory_stats_args;

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
  void *between[32];  // PJRT_Error_GetCode … PJRT_Device_DefaultMemory
  void *(*memory_stats)(memory_stats_args *);
} pjrt_api;

// memory_stats fills args; it returns why it could not, to be freed, or NULL.
static char *memory_stats(const pjrt_api *api, memory_stats_args *args) {
  if (api->version.major != 0 || api->struct_size < sizeof *api || api->memory_stats == NULL) {
    return strdup("the plugin's PJRT has no such call");
  }
  void *error = api->memory_stats(args);
  if (error == NULL) return NULL;
  error_message_args m = {.struct_size = sizeof m, .error = error};
  api->error_message(&m);
  char *text = strndup(m.message, m.message_size);
  error_destroy_args d = {.struct_size = sizeof d, .error = error};
  api->error_destroy(&d);
  return text;
}
*/
import "C"

import (
	"errors"
	"reflect"
	"runtime"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/go-xla/pjrt"
)

// allocator is what XLA's allocator says of a device's memory, in bytes; 0 where it does not say.
type allocator struct{ inUse, peak, limit int64 }

// allocatorOf asks PJRT (PJRT_Device_MemoryStats). go-xla v0.4.13 does not wrap that call, so it is made here, through the
// plugin's own table of functions; the device's handle is an unexported field of go-xla. XLA's CPU client answers that it
// keeps no such figures.
func allocatorOf(backend compute.Backend, device compute.DeviceNum) (allocator, error) {
	onXLA, ok := backend.(*xla.Backend)
	if !ok {
		return allocator{}, errors.New("no PJRT device")
	}
	api := apiOf(onXLA.PluginName())
	handle := deviceHandle(onXLA, device)
	if api == nil || handle == nil {
		return allocator{}, errors.New("PJRT's handle of the device was not found")
	}
	args := (*C.memory_stats_args)(C.calloc(1, C.sizeof_memory_stats_args))
	defer C.free(unsafe.Pointer(args))
	args.struct_size = C.sizeof_memory_stats_args
	args.device = handle
	message := C.memory_stats((*C.pjrt_api)(api), args)
	runtime.KeepAlive(backend)
	if message != nil {
		defer C.free(unsafe.Pointer(message))
		return allocator{}, errors.New(C.GoString(message))
	}
	a := allocator{inUse: int64(args.bytes_in_use)}
	if args.peak_bytes_in_use_is_set {
		a.peak = int64(args.peak_bytes_in_use)
	}
	if args.bytes_limit_is_set {
		a.limit = int64(args.bytes_limit)
	}
	return a, nil
}

// apiOf returns the function table of a loaded plugin by its name in go-xla, nil where there is none.
func apiOf(handle string) unsafe.Pointer {
	opening.Lock()
	defer opening.Unlock()
	for _, p := range loaded {
		if p.handle == handle {
			return p.api
		}
	}
	return nil
}

// deviceHandle finds PJRT's own pointer (xla.Backend.client, pjrt.Device.cDevice), nil where the fields are not there.
func deviceHandle(backend *xla.Backend, device compute.DeviceNum) unsafe.Pointer {
	field := reflect.ValueOf(backend).Elem().FieldByName("client")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*pjrt.Client]() {
		return nil
	}
	client := *(**pjrt.Client)(unsafe.Pointer(field.UnsafeAddr()))
	if client == nil || int(device) >= len(client.AddressableDevices()) {
		return nil
	}
	handle := reflect.ValueOf(client.AddressableDevices()[device]).Elem().FieldByName("cDevice")
	if !handle.IsValid() || handle.Kind() != reflect.Pointer {
		return nil
	}
	return handle.UnsafePointer()
}
