// Package generate is what every generation of tokens is made of, whatever the model and the cache:
// the loop on the device (Loop), its host's side (Run), the graphs of both, each compiled once
// (Programs), and the sizes of prompts, caches and calls. Package llama generates with it, and so
// do the sessions of package kvq.
package generate
