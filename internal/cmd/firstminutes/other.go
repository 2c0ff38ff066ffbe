//go:build !linux

// Command firstminutes plays three users at a terminal, on Linux alone.
package main

func main() { panic("first-five-minutes wants Linux's pseudo-terminals") }
