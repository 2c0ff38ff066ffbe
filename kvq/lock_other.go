//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package kvq

import "os"

// lock does nothing: where there is no flock, a system that refuses to remove an open file, as
// Windows does, protects it.
func lock(*os.File) error { return nil }

func busy(error) bool { return false }

func publish(file *os.File, path string) error {
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
