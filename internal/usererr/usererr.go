// Package usererr marks errors that the caller's input caused: a missing file, a field with an absurd value, a
// prompt that is too long. Programs print such an error in one line and exit with status 2; every other error is a
// failure of the program or the machine, status 1.
package usererr

import (
	"errors"
	"fmt"
	"strings"
)

// inputError is an error that the input caused. Its message is one line.
type inputError struct {
	message string
	cause   error // nil unless the format wrapped one with %w
}

func (e *inputError) Error() string { return e.message }
func (e *inputError) Unwrap() error { return e.cause }

// New returns an error of bad input. The message says what was wanted and what came, in one line: line breaks that
// an argument brings along become blanks. An argument wrapped with %w stays reachable for errors.Is and errors.As.
func New(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &inputError{message: strings.Join(strings.FieldsFunc(err.Error(), isLineBreak), " "), cause: errors.Unwrap(err)}
}

// Is says whether bad input caused err, also when other errors wrap it.
func Is(err error) bool {
	var input *inputError
	return errors.As(err, &input)
}

func isLineBreak(r rune) bool { return r == '\n' || r == '\r' }
