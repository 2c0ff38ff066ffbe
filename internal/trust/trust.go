// Package trust tells whether a file or folder could have been written by somebody whose code this
// process must not run: what is kept for later (machine code, objects of the linker) is refused
// then, as ssh refuses keys.
package trust

import "fmt"

// Error says in one line who could have written a file or folder.
type Error struct {
	Text string // the file or folder, and who
	Mode bool   // its mode is the reason, and not its owner
}

func (e *Error) Error() string { return e.Text }

func refuse(mode bool, format string, args ...any) error {
	return &Error{fmt.Sprintf(format, args...), mode}
}
