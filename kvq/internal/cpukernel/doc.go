// Package cpukernel is attention of single tokens over all that a cache holds of a layer, in C.
package cpukernel
