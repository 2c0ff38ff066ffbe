package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// fileJSON is a tokenizer.json. Stages have a type each and are read by it.
type fileJSON struct {
	AddedTokens   []addedJSON     `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         *modelJSON      `json:"model"`
}

type addedJSON struct {
	ID         Token  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	Lstrip     bool   `json:"lstrip"`
	Rstrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

func (a addedJSON) token() addedToken {
	return addedToken{id: a.ID, content: a.Content, singleWord: a.SingleWord, lstrip: a.Lstrip, rstrip: a.Rstrip,
		normalized: a.Normalized, special: a.Special}
}

type modelJSON struct {
	Type                    string            `json:"type"`
	Vocab                   json.RawMessage   `json:"vocab"`
	Merges                  []json.RawMessage `json:"merges"` // "a b" or ["a", "b"]
	UnknownToken            *string           `json:"unk_token"`
	FuseUnknown             bool              `json:"fuse_unk"`
	ByteFallback            bool              `json:"byte_fallback"`
	IgnoreMerges            bool              `json:"ignore_merges"`
	Dropout                 *float64          `json:"dropout"`
	ContinuingSubwordPrefix string            `json:"continuing_subword_prefix"`
	EndOfWordSuffix         string            `json:"end_of_word_suffix"`
}

// parseJSON makes a tokenizer of a tokenizer.json's content.
func parseJSON(data []byte) (*Tokenizer, error) { return parseFile(data, func(*fileJSON) {}) }

// parseFile is parseJSON with a change of the file's fields.
func parseFile(data []byte, change func(*fileJSON)) (*Tokenizer, error) {
	var file fileJSON
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, usererr.New("not a tokenizer.json: %w", err)
	}
	change(&file)
	if file.Model == nil {
		return nil, usererr.New("field %.60q is absent", "model")
	}
	t := &Tokenizer{bos: -1, eos: -1, pad: -1, unknown: -1, special: make(map[Token]bool)}
	var err error
	if t.model, err = file.Model.bpe(); err != nil {
		return nil, err
	}
	var stages stageReader
	if t.normalize, err = stages.normalizer(file.Normalizer); err != nil {
		return nil, err
	}
	if t.preTokenize, err = stages.preTokenizer(file.PreTokenizer); err != nil {
		return nil, err
	}
	if t.decoder, err = parseDecoder(file.Decoder); err != nil {
		return nil, err
	}
	around, err := stages.postProcessor(file.PostProcessor)
	if err != nil {
		return nil, err
	}
	t.prefix, t.suffix = around.prefix, around.suffix
	var list []addedToken
	for _, a := range file.AddedTokens {
		token := a.token()
		// the vocabulary's id counts, as in Hugging Face's tokenizers
		if id, found := t.model.ids[token.content]; found {
			token.id = id
		}
		list = append(list, token)
	}
	if err := t.setAdded(list); err != nil {
		return nil, err
	}
	for _, id := range slices.Concat(t.prefix, t.suffix) {
		if _, found := t.Piece(id); !found {
			return nil, usererr.New("post-processor: the vocabulary has no token with id %d", id)
		}
	}
	t.unknown = t.model.unknown
	return t, nil
}

// setAdded makes the added tokens; later ones replace earlier ones of the same content, as in
// transformers.
func (t *Tokenizer) setAdded(list []addedToken) error {
	const most = 1 << 24 // no vocabulary is larger; a wild id must not make VocabSize wild
	// At each place of a text so many bytes are compared at most.
	const longest = 4096
	for _, a := range list {
		if a.id < 0 || a.id >= most {
			return usererr.New("added token %.60q has id %d, want 0 to %d", a.content, a.id, most-1)
		}
		if len(a.content) > longest || a.normalized && t.normalize != nil && len(t.normalize(a.content)) > longest {
			return usererr.New("added token %d has more than %d bytes", a.id, longest)
		}
		if a.special {
			t.special[a.id] = true
		}
	}
	t.added = newAddedTokens(list, t.normalize)
	return nil
}

func (m *modelJSON) bpe() (*bpe, error) {
	switch {
	case m.Type != "BPE" && m.Type != "": // old files leave the type out
		return nil, usererr.New("model of type %.60q is not supported, want BPE", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, usererr.New("model: dropout = %g, want none", *m.Dropout)
	case m.ContinuingSubwordPrefix != "" || m.EndOfWordSuffix != "":
		return nil, usererr.New("model: continuing_subword_prefix and end_of_word_suffix are not supported")
	}
	vocabulary := make(map[string]int)
	if err := json.Unmarshal(m.Vocab, &vocabulary); err != nil {
		return nil, usererr.New("model: vocab: %w", err)
	}
	b, err := newBPE(vocabulary)
	if err != nil {
		return nil, err
	}
	b.fuseUnknown, b.ignoreMerges = m.FuseUnknown, m.IgnoreMerges
	b.merges = make(map[pair]merge, len(m.Merges))
	for rank, raw := range m.Merges {
		left, right, err := parseMerge(raw)
		if err == nil {
			err = b.addMerge(left, right, int32(rank))
		}
		if err != nil {
			return nil, usererr.New("model: merge %d: %w", rank, err)
		}
	}
	if m.UnknownToken != nil {
		id, found := b.ids[*m.UnknownToken]
		if !found {
			return nil, usererr.New("model: unk_token %.60q is not in the vocabulary", *m.UnknownToken)
		}
		b.unknown = id
	}
	if m.ByteFallback {
		if err := b.findBytes(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func parseMerge(raw json.RawMessage) (left, right string, err error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		left, right, found := strings.Cut(text, " ")
		if !found || strings.Contains(right, " ") {
			return "", "", usererr.New("came %.60q, want two tokens with a blank between", text)
		}
		return left, right, nil
	}
	var two []string
	if json.Unmarshal(raw, &two) != nil || len(two) != 2 {
		return "", "", usererr.New("came %.60s, want two tokens", raw)
	}
	return two[0], two[1], nil
}

// maxVocabulary bounds ids, so that a damaged file cannot make the table of tokens huge.
// Vocabularies have gaps, but few: see sparse.
const maxVocabulary = 1 << 24

// sparse says that a table of so many ids would be mostly empty: memory that a short file must not
// take.
func sparse(size, tokens int) bool { return size > 1<<16+4*tokens }

func newBPE(vocabulary map[string]int) (*bpe, error) {
	b := &bpe{ids: make(map[string]Token, len(vocabulary)), unknown: -1}
	size := 0
	for token, id := range vocabulary {
		if id < 0 || id >= maxVocabulary {
			return nil, usererr.New("model: token %.60q has id %d, want 0 to %d", token, id, maxVocabulary-1)
		}
		size = max(size, id+1)
	}
	if size == 0 {
		return nil, usererr.New("model: the vocabulary is empty")
	}
	if sparse(size, len(vocabulary)) {
		return nil, usererr.New("model: ids up to %d for %d tokens, want ids without large gaps", size-1, len(vocabulary))
	}
	b.tokens, b.used = make([]string, size), make([]bool, size)
	for token, id := range vocabulary {
		if b.used[id] {
			return nil, usererr.New("model: tokens %.60q and %.60q have the same id %d", min(token, b.tokens[id]), max(token, b.tokens[id]), id)
		}
		b.tokens[id], b.used[id], b.ids[token] = token, true, Token(id)
	}
	return b, nil
}

func (m *bpe) addMerge(left, right string, rank int32) error {
	l, foundLeft := m.ids[left]
	r, foundRight := m.ids[right]
	joined, foundJoined := m.ids[left+right]
	if !foundLeft || !foundRight || !foundJoined {
		return usererr.New("%.60q and %.60q: want both and their union in the vocabulary", left, right)
	}
	if _, twice := m.merges[pair{l, r}]; !twice { // the earlier one counts, it has the better rank
		m.merges[pair{l, r}] = merge{rank, joined}
	}
	return nil
}

// findBytes finds the tokens <0x00> to <0xFF>.
func (m *bpe) findBytes() error {
	m.byteIDs = new([256]Token)
	for b := range m.byteIDs {
		name := fmt.Sprintf("<0x%02X>", b)
		id, found := m.ids[name]
		if !found {
			return usererr.New("model: byte fallback without the token %s", name)
		}
		m.byteIDs[b] = id
	}
	return nil
}
