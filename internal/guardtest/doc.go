// Package guardtest tests what a program says that was built with another GoMLX or go-xla than the
// tested ones: copies of the two modules in which a field has another name.
package guardtest
