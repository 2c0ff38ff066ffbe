// Package usererr marks errors that the caller's input caused: a missing file, a field with an
// absurd value, a prompt that is too long. Programs print such an error in one line and exit with
// status 2; every other error is a failure of the program or the machine, status 1.
//
// The public packages export [ErrInput] under the same name, so that every program can tell the two
// apart.
package usererr

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInput is what every error of New is, for errors.Is.
var ErrInput = errors.New("bad input")

// inputError is an error that the input caused. Its message is one line.
type inputError struct {
	message string
	cause   error // nil unless the format wrapped one with %w
}

func (e *inputError) Error() string { return e.message }
func (e *inputError) Unwrap() error { return e.cause }

// Is makes errors.Is(err, ErrInput) true.
func (e *inputError) Is(target error) bool { return target == ErrInput }

// New returns an error of bad input. The message says what was wanted and what came, in one line:
// line breaks that an argument brings along become blanks, and what is too long to be read is cut.
// An argument wrapped with %w stays reachable for errors.Is and errors.As.
func New(format string, args ...any) error {
	err := fmt.Errorf(format, inPlainWords(args)...)
	return &inputError{message: short(strings.Join(strings.FieldsFunc(err.Error(), isLineBreak), " ")), cause: errors.Unwrap(err)}
}

// Is says whether bad input caused err, also when other errors wrap it.
func Is(err error) bool { return errors.Is(err, ErrInput) }

func isLineBreak(r rune) bool { return r == '\n' || r == '\r' }
