package tokenizer

import "strings"

// Stream turns tokens into text as they come. It never gives a part of a character: bytes that may
// still become one wait for the next token. The pieces joined are what Decode gives for all ids,
// except that in a run of byte tokens only the broken bytes become U+FFFD, not the whole run. Not
// safe for concurrent use.
type Stream struct {
	tokenizer   *Tokenizer
	skipSpecial bool
	begun       bool   // a piece was seen
	strip       int    // blanks that the text's beginning still loses
	waiting     []byte // the beginning of a character
}

// Stream begins a text. skipSpecial leaves special tokens out.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream {
	return &Stream{tokenizer: t, skipSpecial: skipSpecial, strip: t.decoder.strip}
}

// StreamAfter begins a text that goes on after tokens which are not given out, as a prompt: a
// decoder that drops the blank of a first word does not drop that of the new text.
func (t *Tokenizer) StreamAfter(prompt []Token, skipSpecial bool) *Stream {
	s := t.Stream(skipSpecial)
	s.Push(prompt...)
	s.waiting = nil
	return s
}

// Push takes the next ids and returns the text that is certain now; it may be empty.
func (s *Stream) Push(ids ...Token) string {
	var out strings.Builder
	for _, piece := range s.tokenizer.pieces(ids, s.skipSpecial) {
		s.waiting = s.tokenizer.decoder.appendBytes(s.waiting, piece, !s.begun)
		s.begun = true
		s.drain(&out, false)
	}
	return s.stripped(out.String())
}

// Flush ends the text: what still waits becomes U+FFFD. The stream can begin anew afterwards.
func (s *Stream) Flush() string {
	var out strings.Builder
	s.drain(&out, true)
	text := s.stripped(out.String())
	*s = *s.tokenizer.Stream(s.skipSpecial)
	return text
}

// drain writes whole characters, and at the end all that is left.
func (s *Stream) drain(out *strings.Builder, end bool) {
	rest := s.waiting
	for len(rest) > 0 {
		n, state := nextRune(rest)
		if state == runeCutOff && !end {
			break
		}
		if state == runeComplete {
			out.Write(rest[:n])
		} else {
			out.WriteRune('\uFFFD')
		}
		rest = rest[n:]
	}
	s.waiting = append(s.waiting[:0], rest...)
}

func (s *Stream) stripped(text string) string {
	for s.strip > 0 && strings.HasPrefix(text, " ") {
		text = text[1:]
		s.strip--
	}
	if text != "" {
		s.strip = 0
	}
	return text
}
