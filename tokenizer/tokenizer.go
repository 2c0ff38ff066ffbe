package tokenizer

import "strings"

// Token is the id of a token in a model's vocabulary. Where there may be none, -1 says so.
type Token = int32

// Tokenizer turns text into ids and back. Make one with FromGGUF or FromFolder. Safe for concurrent
// use.
type Tokenizer struct {
	model        *bpe
	normalize    normalizer   // nil: text stays as it is
	preTokenize  preTokenizer // nil: each piece of text is one word
	added        *addedTokens
	decoder      decoder
	prefix       []Token // ids that the template puts before every text, such as <s>
	suffix       []Token // ids that it puts after
	special      map[Token]bool
	bos, eos     Token // -1 when there is none
	pad, unknown Token
	chatTemplate string
}

// EncodeOptions change how a text is encoded. The zero value is what Encode does.
type EncodeOptions struct {
	// WithoutSpecialTokens leaves out what the model's template adds around a text, such as <s>:
	// add_special_tokens=False in transformers.
	WithoutSpecialTokens bool
	// SplitSpecialTokens reads the names of special tokens, such as "</s>", as plain text: for text
	// that a stranger wrote. split_special_tokens=True in transformers.
	SplitSpecialTokens bool
}

// Encode returns the ids of text. As in transformers, names of added and special tokens in the text
// become those tokens, and the model's template is applied (Llama-2 puts <s> first; SmolLM2 adds
// nothing). Bytes that are not UTF-8 count as U+FFFD.
func (t *Tokenizer) Encode(text string) []Token { return t.EncodeWith(text, EncodeOptions{}) }

// EncodeWith is Encode with options.
func (t *Tokenizer) EncodeWith(text string, o EncodeOptions) []Token {
	var ids []Token
	if !o.WithoutSpecialTokens {
		ids = append(ids, t.prefix...)
	}
	ids = t.encode(ids, validUTF8(text), o.SplitSpecialTokens)
	if !o.WithoutSpecialTokens {
		ids = append(ids, t.suffix...)
	}
	return ids
}

func (t *Tokenizer) encode(ids []Token, text string, splitSpecial bool) []Token {
	for _, s := range t.added.split(text, t.normalize, splitSpecial) {
		if s.id >= 0 {
			ids = append(ids, s.id)
			continue
		}
		words := []string{s.text}
		if t.preTokenize != nil {
			words = t.preTokenize(words, s.first)
		}
		for _, word := range words {
			ids = t.model.encode(ids, word)
		}
	}
	return ids
}

// Decode returns the text of ids. Ids that the vocabulary does not have are left out, and special
// tokens too if skipSpecial is set. Bytes that form no character become U+FFFD. Spaces are left as
// they are (clean_up_tokenization_spaces=False).
func (t *Tokenizer) Decode(ids []Token, skipSpecial bool) string {
	return t.decoder.decode(t.pieces(ids, skipSpecial))
}

// BatchDecode decodes every row.
func (t *Tokenizer) BatchDecode(rows [][]Token, skipSpecial bool) []string {
	texts := make([]string, len(rows))
	for i, row := range rows {
		texts[i] = t.Decode(row, skipSpecial)
	}
	return texts
}

func (t *Tokenizer) pieces(ids []Token, skipSpecial bool) []string {
	pieces := make([]string, 0, len(ids))
	for _, id := range ids {
		if skipSpecial && t.special[id] {
			continue
		}
		if piece, found := t.Piece(id); found {
			pieces = append(pieces, piece)
		}
	}
	return pieces
}

// VocabSize is one more than the largest id.
func (t *Tokenizer) VocabSize() int {
	size := len(t.model.tokens)
	for id := range t.added.byID {
		size = max(size, int(id)+1)
	}
	return size
}

// ModelVocabSize is one more than the largest id without tokens that were added to the vocabulary.
func (t *Tokenizer) ModelVocabSize() int { return len(t.model.tokens) }

// BOS is the token that begins a sequence, -1 when there is none. Whether Encode adds it is the
// model's choice.
func (t *Tokenizer) BOS() Token { return t.bos }

// EOS is the token that ends a sequence, -1 when there is none.
func (t *Tokenizer) EOS() Token { return t.eos }

// Pad is the padding token that the model's files name, -1 when there is none; then EOS serves as
// well, because padding is masked.
func (t *Tokenizer) Pad() Token { return t.pad }

// ID returns the id of a token by its name in the vocabulary, such as "<s>" or "Ġthe".
func (t *Tokenizer) ID(piece string) (id Token, found bool) {
	if a, found := t.added.byContent[piece]; found {
		return a.id, true
	}
	id, found = t.model.ids[piece]
	return id, found
}

// Piece returns the name of a token in the vocabulary, such as "Ġthe".
func (t *Tokenizer) Piece(id Token) (piece string, found bool) {
	if a, found := t.added.byID[id]; found {
		return a.content, true
	}
	if id < 0 || int(id) >= len(t.model.tokens) || !t.model.used[id] {
		return "", false
	}
	return t.model.tokens[id], true
}

// IsSpecial says whether an id steers the model rather than standing for text, such as </s>.
func (t *Tokenizer) IsSpecial(id Token) bool { return t.special[id] }

// validUTF8 is Python's view of text: no byte that belongs to no character.
func validUTF8(text string) string { return lossyUTF8([]byte(text)) }

// lossyUTF8 makes a string of bytes; every longest part that could have begun a character, but did
// not, becomes U+FFFD: the rule of Unicode (section 3.9, "maximal subparts"), Rust and Python. Go's
// own functions count otherwise.
func lossyUTF8(b []byte) string {
	var out strings.Builder
	out.Grow(len(b))
	for len(b) > 0 {
		n, state := nextRune(b)
		if state == runeComplete {
			out.Write(b[:n])
		} else {
			out.WriteRune('\uFFFD')
		}
		b = b[n:]
	}
	return out.String()
}

type runeState int

const (
	runeComplete runeState = iota // a character
	runeBroken                    // bytes that can be no part of one
	runeCutOff                    // the beginning of one; the rest may still come
)

// nextRune says what b, which is not empty, begins with, and how many bytes that takes. The table
// is that of well-formed UTF-8 byte sequences in the Unicode standard.
func nextRune(b []byte) (int, runeState) {
	first := b[0]
	// of the second byte; later ones have the full range
	length, low, high := 0, byte(0x80), byte(0xBF)
	switch {
	case first < 0x80:
		return 1, runeComplete
	case first >= 0xC2 && first <= 0xDF:
		length = 2
	case first >= 0xE0 && first <= 0xEF:
		length = 3
		if first == 0xE0 {
			low = 0xA0 // else overlong
		} else if first == 0xED {
			high = 0x9F // else a surrogate
		}
	case first >= 0xF0 && first <= 0xF4:
		length = 4
		if first == 0xF0 {
			low = 0x90
		} else if first == 0xF4 {
			high = 0x8F // else above U+10FFFF
		}
	default:
		return 1, runeBroken
	}
	for i := 1; i < length; i++ {
		if i == len(b) {
			return i, runeCutOff
		}
		if b[i] < low || b[i] > high {
			return i, runeBroken
		}
		low, high = 0x80, 0xBF
	}
	return length, runeComplete
}
