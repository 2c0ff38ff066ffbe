package pjrt

import (
	"errors"
	"reflect"
	"unsafe"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/internal/private"
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
	client, ok := private.BackendClient.Find(backend)
	if !ok {
		return Device{}, ErrNoDevice
	}
	list, ok := private.ClientDevices.Find(client)
	if !ok || n < 0 || int(n) >= list.Len() {
		return Device{}, ErrNoDevice
	}
	plugin, _ := private.ClientPlugin.Find(client)
	wrapped, _ := private.ClientHandle.Find(client)
	d := Device{
		backend: backend,
		api:     handle(private.PluginAPI, plugin),
		client:  handle(private.HandleC, wrapped),
		device:  handle(private.DeviceHandle, list.Index(int(n))),
	}
	if d.api == nil || d.client == nil || d.device == nil {
		return Device{}, ErrNoDevice
	}
	return d, nil
}

// MemoryStats are the figures of XLA's allocator in bytes; 0 where it does not say.
type MemoryStats struct{ InUse, Peak, Limit int64 }

// handle returns a pointer that a struct holds, nil where there is none.
func handle(f *private.Field, owner reflect.Value) unsafe.Pointer {
	if p, ok := f.Find(owner); ok {
		return p.UnsafePointer()
	}
	return nil
}
