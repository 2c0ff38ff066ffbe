//go:build linux && cgo

package pjrt_test

import (
	"fmt"
	"testing"

	gopjrt "github.com/gomlx/go-xla/pjrt"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/internal/pjrt"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// A list of attributes is read as go-xla reads it.
func TestAttributes(t *testing.T) {
	backend := testbackend.XLA(t)
	d, err := pjrt.Of(backend, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pjrt.PluginAttributes(d)
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := gopjrt.GetPlugin(backend.(interface{ PluginName() string }).PluginName())
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for name, want := range plugin.Attributes() {
		switch want.(type) {
		case string, int64:
			read++
			if fmt.Sprint(got[name]) != fmt.Sprint(want) {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
	}
	if read == 0 || len(got) != read {
		t.Errorf("%d attributes of text and numbers, read %v", read, got)
	}
	if _, err := d.Attributes(); err != nil { // the CPU has none
		t.Error(err)
	}
}

func TestDevice(t *testing.T) {
	backend := testbackend.XLA(t)
	d, err := pjrt.Of(backend, 0)
	if err != nil {
		t.Fatal(err)
	}
	if platform, err := d.Platform(); err != nil || platform != "cpu" {
		t.Errorf("Platform() = %q, %v; want cpu", platform, err)
	}
	if kind, err := d.Kind(); err != nil || kind == "" {
		t.Errorf("Kind() = %q, %v", kind, err)
	}
	if stats, err := d.MemoryStats(); err == nil {
		t.Errorf("MemoryStats() = %+v, want XLA's own answer that the CPU has none", stats)
	}
	for _, n := range []compute.DeviceNum{-1, compute.DeviceNum(backend.NumDevices())} {
		if _, err := pjrt.Of(backend, n); err != pjrt.ErrNoDevice {
			t.Errorf("Of device %d: %v, want ErrNoDevice", n, err)
		}
	}
	if _, err := pjrt.Of(testbackend.Go(t), 0); err != pjrt.ErrNoDevice {
		t.Errorf("Of the pure-Go backend: %v, want ErrNoDevice", err)
	}
}
