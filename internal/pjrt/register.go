package pjrt

/*
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// PJRT's extension for functions that programs call (xla/pjrt/c/pjrt_c_api_ffi_extension.h).
typedef struct extension {
  size_t struct_size;
  int type;
  struct extension *next;
  void *type_register, *user_data_add;  // of the one for functions
  void *(*register_handler)(void *);
} extension;

enum { ffi = 5 };  // its type

typedef struct {
  size_t struct_size;
  const char *target;
  size_t target_size;
  void *handler;
  const char *platform;
  size_t platform_size;
  int traits;
} register_args;

static const extension *ffi_of(const void *extensions) {
  for (const extension *e = extensions; e != NULL; e = e->next) {
    if (e->type == ffi && e->struct_size >= sizeof *e && e->register_handler != NULL) return e;
  }
  return NULL;
}

// give registers a handler for the platform "Host". It returns PJRT's error or NULL.
static void *give(const extension *e, const char *target, size_t size, void *handler) {
  register_args args = {sizeof args, target, size, handler, "Host", 4, 0};
  return e->register_handler(&args);
}
*/
import "C"

import (
	"errors"
	"runtime"
	"sync"
	"unsafe"
)

// registered has the outcome of each registration, as plugins keep functions until the process
// ends.
var registered struct {
	sync.Mutex
	outcomes map[registration]error
}

// registration is a function of a plugin. A copy of a plugin's table has the plugin's own list of
// extensions.
type registration struct {
	extensions unsafe.Pointer
	target     string
}

// Register gives XLA's CPU plugin a function that programs call by the name target: handler is an
// XLA_FFI_Handler (xla/ffi/api/c_api.h). A plugin is given a name once, whatever its backends, and
// an error stays one.
func (d Device) Register(target string, handler unsafe.Pointer) error {
	defer runtime.KeepAlive(d.backend)
	list := *(*unsafe.Pointer)(unsafe.Add(d.api, unsafe.Sizeof(uintptr(0)))) // after the table's size
	r := registration{list, target}
	registered.Lock()
	defer registered.Unlock()
	err, known := registered.outcomes[r]
	if known {
		return err
	}
	err = d.register(r, handler)
	if registered.outcomes == nil {
		registered.outcomes = map[registration]error{}
	}
	registered.outcomes[r] = err
	return err
}

func (d Device) register(r registration, handler unsafe.Pointer) error {
	e := C.ffi_of(r.extensions)
	if e == nil {
		return errors.New("the plugin takes no functions (PJRT's FFI extension)")
	}
	target := C.CString(r.target)
	defer C.free(unsafe.Pointer(target))
	return d.failed(C.give(e, target, C.size_t(len(r.target)), handler))
}
