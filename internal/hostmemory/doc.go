// Package hostmemory hands back what C's malloc keeps. glibc has an arena for each thread, and
// keeps what was freed in the middle of it: of what XLA takes to compile or load a graph, and for a
// long prompt, some hundred megabytes stayed with the process though nothing used them.
package hostmemory
