//go:build linux && cgo

package pjrt_test

import (
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/pjrt"
)

// A plugin without the extension for functions is refused in words. That functions are taken, and
// called, is tested where there are some: package cpukernel.
func TestRegisterWithoutExtension(t *testing.T) {
	for range 2 {
		if err := pjrt.WithoutExtensions().Register("f", nil); err == nil || !strings.Contains(err.Error(), "takes no functions") {
			t.Errorf("%v, want an error", err)
		}
	}
}
