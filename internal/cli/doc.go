// Package cli holds what the commands of kvq share: the flags that describe a model and a cache,
// loading a model with progress, what fits into the memory, printing, and an outcome that is
// printed once. It imports no command.
package cli
