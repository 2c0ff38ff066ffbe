// Package private is the one list of what this module reads and writes of GoMLX, go-xla and GoMLX's
// pure-Go backend without their offering it: fields of their structs, reached by reflection.
//
// A release that renames one of them compiles all the same. So [Fields] lists them with what they
// are for, [Check] looks for all of them at once, and every access goes through [Field.Of], which
// panics with one line that names the field, the tested versions and the versions found.
//
// A new use is a new entry in the table of fields.go.
package private
