package tokenizer

import (
	"strings"

	"github.com/gomlx/go-huggingface/models/gguf"

	"github.com/kvqbook/kvqbook/internal/endnames"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Types of tokens, as in GGUF files and in SentencePiece models.
const (
	typeNormal      = 1
	typeUnknown     = 2
	typeControl     = 3 // special: steers the model
	typeUserDefined = 4 // an added word
	typeUnused      = 5
	typeByte        = 6 // <0xE4>
)

// FromGGUF makes the tokenizer that a GGUF file's metadata (tokenizer.ggml.*) describes: byte-level
// BPE with one of the pre-tokenizers of llama.cpp's table (such as Llama-3's, Qwen2's or Tekken),
// or SentencePiece's BPE with scores.
func FromGGUF(file *gguf.File) (*Tokenizer, error) {
	t, err := fromGGUF(file)
	if err != nil {
		return nil, usererr.New("%s: tokenizer: %w", file.Path(), err)
	}
	return t, nil
}

func fromGGUF(file *gguf.File) (*Tokenizer, error) {
	value := func(key string) gguf.Value {
		kv, _ := file.GetKeyValue("tokenizer." + key)
		return kv.Value
	}
	pieces := value("ggml.tokens").Strings()
	if len(pieces) == 0 {
		return nil, usererr.New("metadata %q is absent", "tokenizer.ggml.tokens")
	}
	types, err := ggufTypes(value("ggml.token_type"), len(pieces))
	if err != nil {
		return nil, err
	}
	for _, id := range endnames.In(pieces) { // some converters take these for plain text
		if types[id] == typeNormal || types[id] == typeUserDefined {
			types[id] = typeControl
		}
	}
	var t *Tokenizer
	var addBOS bool
	switch kind := value("ggml.model").String(); kind {
	case "gpt2":
		t, addBOS, err = ggufByteLevel(pieces, types, value("ggml.merges").Strings(), value("ggml.pre").String())
	case "llama":
		addBOS = true
		space, set := value("ggml.add_space_prefix").Raw().(bool)
		scores := ggufScores(value("ggml.scores"))
		t, err = newSentencePiece(pieces, scores, types, prefixScheme(space || !set, "each"))
	default:
		return nil, usererr.New("tokenizer.ggml.model = %q, want %q or %q", kind, "gpt2", "llama")
	}
	if err != nil {
		return nil, err
	}
	id := func(key string) Token {
		v := value(key)
		if n := v.Int64(); v.Raw() != nil && n >= 0 && n < int64(len(pieces)) {
			return Token(n)
		}
		return -1
	}
	t.bos, t.eos, t.pad = id("ggml.bos_token_id"), id("ggml.eos_token_id"), id("ggml.padding_token_id")
	if t.unknown = t.model.unknown; t.unknown < 0 {
		t.unknown = id("ggml.unknown_token_id")
	}
	if set, found := value("ggml.add_bos_token").Raw().(bool); found {
		addBOS = set
	}
	addEOS, _ := value("ggml.add_eos_token").Raw().(bool)
	t.setTemplate(addBOS, addEOS)
	t.chatTemplate = value("chat_template").String()
	return t, nil
}

// setTemplate makes the rule of LlamaTokenizer: <s> before a text, </s> behind it.
func (t *Tokenizer) setTemplate(addBOS, addEOS bool) {
	t.prefix, t.suffix = nil, nil
	if addBOS && t.bos >= 0 {
		t.prefix = []Token{t.bos}
	}
	if addEOS && t.eos >= 0 {
		t.suffix = []Token{t.eos}
	}
}

func ggufTypes(v gguf.Value, count int) ([]int, error) {
	types := make([]int, count)
	raw := v.Int64s()
	if raw == nil {
		for i := range types {
			types[i] = typeNormal
		}
		return types, nil
	}
	if len(raw) != count {
		return nil, usererr.New("tokenizer.ggml.token_type has %d entries, want %d, one a token", len(raw), count)
	}
	for i, n := range raw {
		types[i] = int(n)
	}
	return types, nil
}

func ggufScores(v gguf.Value) []float64 { return v.Float64s() }

func ggufByteLevel(pieces []string, types []int, merges []string, pre string) (t *Tokenizer, addBOS bool, err error) {
	kind, known := ggufPreTokenizers[pre]
	if !known {
		return nil, false, usererr.New("tokenizer.ggml.pre = %q, want one of %s", pre, strings.Join(sortedKeys(ggufPreTokenizers), ", "))
	}
	if len(merges) == 0 {
		return nil, false, usererr.New("metadata %q is absent", "tokenizer.ggml.merges")
	}
	vocabulary := make(map[string]int, len(pieces))
	for id, piece := range pieces {
		if piece == "" { // a filler: it has no text to be found by
			continue
		}
		if other, twice := vocabulary[piece]; twice {
			return nil, false, usererr.New("token %q has two ids, %d and %d", piece, other, id)
		}
		vocabulary[piece] = id
	}
	t = &Tokenizer{bos: -1, eos: -1, pad: -1, unknown: -1, special: make(map[Token]bool), decoder: decoder{byteLevel: true}}
	if t.model, err = newBPE(vocabulary); err != nil {
		return nil, false, err
	}
	t.model.ignoreMerges = kind.ignoreMerges
	t.model.merges = make(map[pair]merge, len(merges))
	for rank, text := range merges {
		left, right, _ := strings.Cut(text, " ")
		if err := t.model.addMerge(left, right, int32(rank)); err != nil {
			return nil, false, usererr.New("merge %d: %w", rank, err)
		}
	}
	if t.preTokenize, err = kind.preTokenizer(); err != nil {
		return nil, false, err
	}
	t.normalize = kind.normalize
	return t, kind.addBOS, t.setAdded(addedByType(pieces, types))
}

// addedByType lists the tokens that are found in the text before anything else.
func addedByType(pieces []string, types []int) []addedToken {
	var list []addedToken
	for id, piece := range pieces {
		if piece == "" {
			continue
		}
		switch types[id] {
		case typeUnknown, typeControl:
			list = append(list, addedToken{id: Token(id), content: piece, special: true})
		case typeUserDefined:
			list = append(list, addedToken{id: Token(id), content: piece})
		}
	}
	return list
}
