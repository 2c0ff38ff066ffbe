package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns pieces into text. The zero value joins them as they are.
type decoder struct {
	byteLevel bool // pieces are bytes written as characters (GPT-2); the other fields do not apply

	replacement  string // becomes a blank; "" for none
	byteFallback bool   // <0xE4> is a byte
	strip        int    // how many blanks the beginning of the text loses at most
	// firstBare: the first piece loses its replacements instead of turning them into blanks
	// (decoder "Metaspace").
	firstBare bool
}

// decode joins all pieces, as Hugging Face's tokenizers do.
func (d decoder) decode(pieces []string) string {
	if d.byteLevel {
		var b []byte
		for _, piece := range pieces {
			b = d.appendBytes(b, piece, false)
		}
		return lossyUTF8(b)
	}
	var out strings.Builder
	var run []byte // byte tokens in a row
	flush := func() {
		if utf8.Valid(run) {
			out.Write(run)
		} else {
			// one broken byte spoils its whole run
			out.WriteString(strings.Repeat("\uFFFD", len(run)))
		}
		run = run[:0]
	}
	for i, piece := range pieces {
		if b, isByte := d.byteToken(piece); isByte {
			run = append(run, b)
			continue
		}
		flush()
		out.Write(d.appendBytes(nil, piece, i == 0))
	}
	flush()
	return d.stripped(out.String())
}

func (d decoder) stripped(text string) string {
	n := 0
	for n < min(d.strip, len(text)) && text[n] == ' ' {
		n++
	}
	return text[n:]
}

// appendBytes appends what one piece stands for.
func (d decoder) appendBytes(b []byte, piece string, first bool) []byte {
	if d.byteLevel {
		start := len(b)
		for _, r := range piece {
			c, found := characterByte[r]
			if !found {
				return append(b[:start], piece...) // an added token, written out
			}
			b = append(b, c)
		}
		return b
	}
	if c, isByte := d.byteToken(piece); isByte {
		return append(b, c)
	}
	if d.replacement != "" {
		blank := " "
		if first && d.firstBare {
			blank = ""
		}
		piece = strings.ReplaceAll(piece, d.replacement, blank)
	}
	return append(b, piece...)
}

func (d decoder) byteToken(piece string) (byte, bool) {
	if !d.byteFallback {
		return 0, false
	}
	return parseByteToken(piece)
}

// parseByteToken reads <0xE4>.
func parseByteToken(piece string) (byte, bool) {
	if len(piece) != 6 || !strings.HasPrefix(piece, "<0x") || piece[5] != '>' {
		return 0, false
	}
	n, err := strconv.ParseUint(piece[3:5], 16, 8)
	return byte(n), err == nil
}
