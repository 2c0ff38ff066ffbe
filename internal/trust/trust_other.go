//go:build !unix

package trust

import "io/fs"

// Owners cannot be told here, so nothing is trusted.
type Owners []int

// Me is nobody.
func Me() Owners { return nil }

// And adds nobody.
func (o Owners) And(int) Owners { return o }

// OwnerOf returns -1.
func OwnerOf(fs.FileInfo) int { return -1 }

// Check returns an [*Error].
func (o Owners) Check(path string, info fs.FileInfo) error {
	return refuse(false, "%s: who could have written it is not known on this system", path)
}

// Writable is not known.
func Writable(string) bool { return true }
