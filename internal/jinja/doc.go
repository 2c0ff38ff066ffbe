// Package jinja renders chat templates: Jinja2's language as transformers sets it up
// (ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls, the generation
// tag, its tojson, raise_exception and strftime_now).
//
// A template comes with a model, from whoever made the file. So two things hold, whatever it
// contains.
//
// It ends. Every node that is evaluated, every iteration, every byte that is read or made is
// counted by the interpreter itself, and a value is counted before memory is taken for it. [Limits]
// has the bounds. Calls, nested expressions and nested values have a greatest depth, so the Go
// stack cannot overflow. The caller's context is looked at every few thousand units of work.
//
// It is Jinja2 or an error. What this package does not implement is refused by name: a tag, a
// filter, a test or a method that Jinja2 has and this package does not never gives another text.
// Messages tell the place, and never quote the template; only what the template says by
// raise_exception is passed on, on one line and cut.
//
// Values have Python's meaning: integers and floats are told apart, a generator can be read once,
// text is a sequence of code points. Lists and dictionaries cannot be changed, as in the sandbox;
// only a namespace can.
//
// The files: lex.go makes tokens, parse.go the tree, nodes.go runs it; value.go, operators.go,
// attributes.go and methods.go are Python's values; filters.go, checks.go (tests, in Jinja's words)
// and globals.go are what templates call; limits.go counts.
//
// scripts/make-template-goldens.py has transformers render the tables in testdata; the tests hold
// this package to them.
package jinja
