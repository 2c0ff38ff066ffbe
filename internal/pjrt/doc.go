// Package pjrt makes the calls of PJRT's C interface that go-xla v0.4.13 does not wrap.
//
// The table of functions is the plugin's own (PJRT_Api), and the handles are go-xla's. Both are
// unexported fields there, so [Of] finds them by reflection: a program that never links go-xla does
// not link it because of this package.
package pjrt
