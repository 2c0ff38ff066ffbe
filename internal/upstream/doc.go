// Package upstream has a minimal program for each fault of GoMLX's layers that docs/upstream.md
// names, run by a test that fails when the fault is mended. Those of graphs and backends are in
// package gx, next to their workarounds.
package upstream
