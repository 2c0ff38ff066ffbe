//go:build unix

package trust

import (
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Owners are numbers of users whose files are trusted.
type Owners []int

// Me is the user that this process acts for.
func Me() Owners { return Owners{os.Geteuid()} }

// And adds a user.
func (o Owners) And(user int) Owners { return append(slices.Clone(o), user) }

// OwnerOf returns the number of a file's owner.
func OwnerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// writableByOthers are the bits of a mode that let a group or everybody write.
const writableByOthers = 0o022

// Check returns an [*Error] where somebody who is not one of the owners could have written a file
// or folder, path, which info describes.
func (o Owners) Check(path string, info fs.FileInfo) error {
	if user := OwnerOf(info); !slices.Contains(o, user) {
		return refuse(false, "%s belongs to user %d", path, user)
	}
	if mode := info.Mode().Perm(); mode&writableByOthers != 0 {
		return refuse(true, "%s can be written by others (mode %04o)", path, mode)
	}
	return nil
}

// Writable tells whether this process can make files in a folder.
func Writable(dir string) bool {
	const write, enter = 2, 1
	return syscall.Access(dir, write|enter) == nil
}
