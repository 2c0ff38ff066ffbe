package pjrt

import (
	"errors"
	"reflect"
	"unsafe"

	"github.com/gomlx/compute"
)

// ErrNoDevice is returned where a backend is not go-xla's, is finalized, or keeps its handles
// elsewhere.
var ErrNoDevice = errors.New("PJRT's handle of the device was not found")

// Device is one device of a client. It is valid as long as its backend is not finalized.
type Device struct {
	backend compute.Backend // keeps the handles alive
	api     unsafe.Pointer  // PJRT_Api
	client  unsafe.Pointer  // PJRT_Client
	device  unsafe.Pointer  // PJRT_Device
}

// Of returns the n-th device of a backend.
func Of(backend compute.Backend, n compute.DeviceNum) (Device, error) {
	d := Device{backend: backend}
	client := field(reflect.ValueOf(backend), "client") // pjrt.Client
	d.api = handle(field(client, "plugin"), "api")
	d.client = handle(field(client, "client"), "c")
	list := field(client, "addressableDevices")
	if list.Kind() != reflect.Slice || int(n) >= list.Len() || n < 0 {
		return Device{}, ErrNoDevice
	}
	d.device = handle(list.Index(int(n)), "cDevice")
	if d.api == nil || d.client == nil || d.device == nil {
		return Device{}, ErrNoDevice
	}
	return d, nil
}

// MemoryStats are the figures of XLA's allocator in bytes; 0 where it does not say.
type MemoryStats struct{ InUse, Peak, Limit int64 }

// field returns a field of the struct that v leads to; the zero Value where there is none.
func field(v reflect.Value, name string) reflect.Value {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}

// handle returns a pointer that a struct holds, nil where there is none.
func handle(v reflect.Value, name string) unsafe.Pointer {
	if p := field(v, name); p.Kind() == reflect.Pointer {
		return p.UnsafePointer()
	}
	return nil
}
