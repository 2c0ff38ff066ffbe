// Package guardtest tests programs as others build them: with another GoMLX or go-xla than the
// tested ones (copies of the two modules in which a field has another name), and for systems
// without XLA.
package guardtest
