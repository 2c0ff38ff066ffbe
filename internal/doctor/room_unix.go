//go:build unix

package doctor

import (
	"errors"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// freeBytes is what this user can still write to the disk of a folder.
func freeBytes(dir string) (free int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}

// isFull tells whether there was no room.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// userName is a user's name, or number where it has none.
func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "user " + id
}
