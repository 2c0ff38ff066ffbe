//go:build linux && cgo

package pjrt

import "unsafe"

// PluginAttributes is for the tests, which stand outside because device imports this package.
func PluginAttributes(d Device) (map[string]any, error) { return d.pluginAttributes() }

// WithoutExtensions is a device of a plugin whose table has no extensions.
func WithoutExtensions() Device {
	return Device{api: unsafe.Pointer(&[2]uintptr{unsafe.Sizeof([2]uintptr{}), 0})}
}
