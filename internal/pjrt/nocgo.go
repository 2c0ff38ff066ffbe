//go:build !cgo

package pjrt

import (
	"errors"
	"unsafe"
)

var errNoCgo = errors.New("built without cgo: PJRT cannot be called")

// Platform returns an error: it needs cgo.
func (d Device) Platform() (string, error) { return "", errNoCgo }

// Kind returns an error: it needs cgo.
func (d Device) Kind() (string, error) { return "", errNoCgo }

// Attributes returns an error: it needs cgo.
func (d Device) Attributes() (map[string]any, error) { return nil, errNoCgo }

// MemoryStats returns an error: it needs cgo.
func (d Device) MemoryStats() (MemoryStats, error) { return MemoryStats{}, errNoCgo }

// Register returns an error: it needs cgo.
func (d Device) Register(string, unsafe.Pointer) error { return errNoCgo }
