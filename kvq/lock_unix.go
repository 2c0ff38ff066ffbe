//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package kvq

import (
	"errors"
	"os"
	"syscall"
)

// lock takes a file for this process until it is closed.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// busy says that lock failed because somebody else has the file.
func busy(err error) bool { return errors.Is(err, syscall.EWOULDBLOCK) }

// publish gives a file its name, locked until it has it.
func publish(file *os.File, path string) error {
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return file.Close()
}
