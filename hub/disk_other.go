//go:build !unix

package hub

// freeBytes is not known here: a full disk is noticed when it is full.
func freeBytes(string) (free int64, known bool) { return 0, false }
