package tokenizer

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// requireUsable encodes and decodes with a tokenizer of a file from a stranger, and renders a
// conversation where it has a template.
func requireUsable(t *testing.T, tok *Tokenizer, text string) {
	ids := tok.Encode(text)
	for _, id := range ids {
		if id < 0 || int(id) >= tok.VocabSize() {
			t.Errorf("id %d of a vocabulary of %d", id, tok.VocabSize())
		}
	}
	// Ids that a model may answer, whatever the tokenizer has.
	_ = tok.Decode(append(ids, 0, Token(tok.VocabSize()), -1, math.MaxInt32), true)
	stream := tok.Stream(false)
	var streamed strings.Builder
	for _, id := range ids {
		streamed.WriteString(stream.Push(id))
	}
	streamed.WriteString(stream.Flush())
	if got, want := streamed.String(), tok.Decode(ids, false); got != want {
		t.Errorf("streamed %q, decoded %q", got, want)
	}
	if tok.ChatTemplate() == "" {
		return
	}
	if _, err := tok.EncodeChat(t.Context(), []Message{{"user", text}}, true); err != nil {
		requireOneLine(t, err)
	}
}

func requireOneLine(t *testing.T, err error) {
	if !usererr.Is(err) || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("%q, want one line of bad input", err)
	}
}

// sentencePieceModel is a tokenizer.model: pieces with scores and types, and what options say, as
// fields of the trainer (2) and the normalizer (3).
func sentencePieceModel(options ...byte) []byte {
	type piece struct {
		text string
		kind byte
	}
	pieces := []piece{{"<unk>", typeUnknown}, {"<s>", typeControl}, {"</s>", typeControl}, {"▁", 1}, {"a", 1}, {"b", 1}, {"ab", 1}, {"▁ab", 1}, {"new", typeUserDefined}}
	for b := range 256 {
		pieces = append(pieces, piece{fmt.Sprintf("<0x%02X>", b), typeByte})
	}
	var out []byte
	for i, p := range pieces {
		piece := append([]byte{0x0A, byte(len(p.text))}, p.text...)
		piece = binary.LittleEndian.AppendUint32(append(piece, 0x15), math.Float32bits(float32(-i)))
		piece = append(piece, 0x18, p.kind)
		out = append(append(out, 0x0A, byte(len(piece))), piece...)
	}
	out = append(out, 0x12, 0x05, 0x18, 0x02, 0x98, 0x02, 0x01) // BPE, with bytes for what has no piece
	out = append(out, 0x1A, 0x02, 0x20, 0x00)                   // blanks stay
	return append(out, options...)
}

// Whatever a tokenizer.model holds, it is refused in one line, or encodes and decodes.
func FuzzSentencePiece(f *testing.F) {
	good := sentencePieceModel()
	if _, err := fromSentencePiece(good, prefixEach); err != nil {
		f.Fatal(err)
	}
	f.Add(good, " ab new\n é")
	f.Add(good[:len(good)/2], "ab")
	f.Add(sentencePieceModel(0x12, 0x02, 0x18, 0x01), "unigram")
	f.Add(sentencePieceModel(0x12, 0x04, 0xC8, 0x02, 0xFF, 0x7F), "an unknown id beyond")
	f.Add(sentencePieceModel(0x1A, 0x02, 0x18, 0x00), "no dummy prefix")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		for _, scheme := range []prefixed{prefixEach, prefixFirst} {
			tok, err := fromSentencePiece(data, scheme)
			if err != nil {
				requireOneLine(t, err)
				return
			}
			requireUsable(t, tok, text)
		}
	})
}

// Whatever a tokenizer_config.json says beside a good tokenizer, chat templates among it, it is
// refused in one line, or the tokenizer works; and soon.
func FuzzTokenizerConfig(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`,
		`{"tokenizer_class":"LlamaTokenizer","add_bos_token":true,"add_eos_token":false,"bos_token":"<s>","eos_token":{"__type":"AddedToken","content":"</s>"},"legacy":false}`,
		`{"chat_template":"{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m.content | trim }}{% endfor %}","bos_token":"<s>"}`,
		`{"chat_template":[{"name":"default","template":"{{ messages[0].content }}"},{"name":"tool_use","template":"x"}]}`,
		`{"chat_template":"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"}`,
		`{"chat_template":"{% for i in range(1000000000) %}{{ 'x' * 1000 }}{% endfor %}"}`,
		`{"added_tokens_decoder":{"9":{"content":"[PAD]","special":true},"-1":{"content":"x"},"99999999999":{"content":"y"}}}`,
		`{"added_tokens_decoder":{"3":null,"x":{}},"pad_token":[]}`,
		`{"bos_token":null,"eos_token":7,"unk_token":""}`,
		`{"tokenizer_class":"LlamaTokenizer","legacy":null,"add_prefix_space":false,"pad_token":"[PAD]","extra_special_tokens":{"image":"<img>"}}`,
		`{"tokenizer_class":"Qwen2TokenizerFast","additional_special_tokens":["<a>",{"content":"<b>"},null,"<a>"],"mask_token":"ab"}`,
		`{"tokenizer_class":"CodeLlamaTokenizer","legacy":true,"add_bos_token":false,"unk_token":"b","extra_special_tokens":["a","cd"]}`,
		`{"tokenizer_class":"GPT2Tokenizer","add_prefix_space":true,"added_tokens_decoder":{"7":{"content":"ab"},"6":{"content":"<n>","normalized":true}}}`,
	} {
		f.Add([]byte(seed), "a</s> ab")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		start := time.Now()
		tok, err := FromFolder(tinyFolder(t, nil, string(data)))
		if err != nil {
			requireOneLine(t, err)
			return
		}
		if len(text) > 1000 {
			text = text[:1000]
		}
		requireUsable(t, tok, text)
		if took := time.Since(start); took > 30*time.Second { // a loaded machine's
			t.Errorf("took %v", took)
		}
	})
}
