//go:build linux && cgo

package pjrt

// PluginAttributes is for the tests, which stand outside because device imports this package.
func PluginAttributes(d Device) (map[string]any, error) { return d.pluginAttributes() }
