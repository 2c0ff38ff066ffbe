// Package setuptest tests the scripts: what scripts/setup says of a machine that lacks something,
// the files it takes out of wheels, and what notebooks/run.py takes for a failure. It also tries
// that notebooks stay right when a reader changes them. It holds nothing but tests.
package setuptest
