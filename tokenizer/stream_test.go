package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// A llama is four byte tokens in Llama-2's vocabulary (243 162 169 156): nothing comes before the
// fourth.
func TestStreamWaitsForWholeCharacters(t *testing.T) {
	tok, err := parseJSON(llama2JSON(t))
	if err != nil {
		t.Fatal(err)
	}
	s := tok.Stream(true)
	var got []string
	for _, id := range []Token{1, 15043, 29871, 243, 162, 169, 156, 29889} { // <s> ▁Hello ▁ 🦙 .
		got = append(got, s.Push(id))
	}
	got = append(got, s.Flush())
	want := []string{"", "Hello", " ", "", "", "", "\U0001F999", ".", ""}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("pieces %q, want %q", got, want)
	}
	// After Flush a new text begins: its first blank is dropped again.
	if got := s.Push(15043) + s.Flush(); got != "Hello" {
		t.Errorf("second text %q, want %q", got, "Hello")
	}
}

func TestStreamCutOff(t *testing.T) {
	tok, err := parseJSON(llama2JSON(t))
	if err != nil {
		t.Fatal(err)
	}
	s := tok.Stream(true)
	if got, want := s.Push(319, 243, 162), "A"; got != want { // half a llama
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := s.Push(29889), "\uFFFD."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := s.Push(243)+s.Flush(), "\uFFFD"; got != want {
		t.Errorf("at the end %q, want %q", got, want)
	}
}

// However the ids are broken up, each piece is valid UTF-8 and all pieces together are the same
// text; for byte-level vocabularies they are what Decode gives, even for ids that make no text.
func TestStreamAnyPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	llama2, err := parseJSON(llama2JSON(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]*Tokenizer{"llama2": llama2, "smollm2": smallModel(t)} {
		for range 300 {
			ids := make([]Token, random.IntN(30))
			for i := range ids {
				ids[i] = Token(random.IntN(min(tok.VocabSize(), 1+random.IntN(60000))))
			}
			whole := tok.Stream(false)
			want := whole.Push(ids...) + whole.Flush()
			if name == "smollm2" && want != tok.Decode(ids, false) {
				t.Fatalf("%v: streamed %q, decoded %q", ids, want, tok.Decode(ids, false))
			}
			s := tok.Stream(false)
			var out strings.Builder
			for rest := ids; len(rest) > 0; {
				n := 1 + random.IntN(len(rest))
				piece := s.Push(rest[:n]...)
				if !utf8.ValidString(piece) {
					t.Fatalf("%v: piece %q is not UTF-8", ids, piece)
				}
				out.WriteString(piece)
				rest = rest[n:]
			}
			out.WriteString(s.Flush())
			if out.String() != want {
				t.Fatalf("%s %v: in pieces %q, at once %q", name, ids, out.String(), want)
			}
		}
	}
}

// The Unicode standard's own example of maximal subparts (table 3-8 and around): bytes on the left,
// how many U+FFFD.
func TestLossyUTF8(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"plain ünïcode 🦙":                      "plain ünïcode 🦙",
		"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82":     "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD", // no byte begins anything
		"\xED\xA0\x80\xED\xBF\xBF\xED\xAF":     "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD", // surrogates
		"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42": "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB",
		// cut off: one for each beginning
		"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41": "\uFFFD\uFFFD\uFFFD\uFFFDA",
		"\U0001F999"[:3]:                       "\uFFFD",
	} {
		if got := lossyUTF8([]byte(in)); got != want {
			t.Errorf("lossyUTF8(%q) = %q, want %q", in, got, want)
		}
	}
}

// After a prompt the blank of the first new word stays; at the beginning of a text it goes.
func TestStreamAfter(t *testing.T) {
	tok, err := parseJSON(llama2JSON(t))
	if err != nil {
		t.Fatal(err)
	}
	prompt, world := tok.Encode("Hello"), []Token{3186} // ▁world
	if got := tok.StreamAfter(prompt, true).Push(world...); got != " world" {
		t.Errorf("after a prompt came %q, want %q", got, " world")
	}
	if got := tok.Stream(true).Push(world...); got != "world" {
		t.Errorf("at the beginning came %q, want %q", got, "world")
	}
}
