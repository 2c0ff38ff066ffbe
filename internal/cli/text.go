package cli

import (
	"unicode/utf8"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Text is what a source holds, if that is text: a model would read anything else in silence.
func Text(source string, data []byte) (string, error) {
	for at := 0; at < len(data); {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 || r == 0 {
			return "", usererr.New("%s: want text in UTF-8, got the byte 0x%02x at %d", source, data[at], at)
		}
		at += size
	}
	return string(data), nil
}
