//go:build !unix

package doctor

import "strconv"

func freeBytes(string) (free int64, known bool) { return 0, false }

func isFull(error) bool { return false }

func userName(uid int) string { return "user " + strconv.Itoa(uid) }
