package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

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
	ID         int    `json:"id"`
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

// stageJSON has the fields of all stages that this package knows.
type stageJSON struct {
	Type          string                `json:"type"`
	Normalizers   []json.RawMessage     `json:"normalizers"`
	PreTokenizers []json.RawMessage     `json:"pretokenizers"`
	Processors    []json.RawMessage     `json:"processors"`
	Decoders      []json.RawMessage     `json:"decoders"`
	Prepend       string                `json:"prepend"`
	Content       string                `json:"content"`
	Pattern       *patternJSON          `json:"pattern"`
	Behavior      string                `json:"behavior"`
	Invert        bool                  `json:"invert"`
	Individual    bool                  `json:"individual_digits"`
	AddPrefix     *bool                 `json:"add_prefix_space"`
	UseRegex      *bool                 `json:"use_regex"`
	Replacement   string                `json:"replacement"`
	PrependScheme string                `json:"prepend_scheme"`
	Split         *bool                 `json:"split"`
	Start         int                   `json:"start"`
	Stop          int                   `json:"stop"`
	Single        []templateItem        `json:"single"`
	SpecialTokens map[string]templateID `json:"special_tokens"`
}

type patternJSON struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

type templateItem struct {
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
}

type templateID struct {
	IDs []int `json:"ids"`
}

// parseJSON makes a tokenizer of a tokenizer.json's content, and of tokens that tokenizer_config.json adds.
func parseJSON(data []byte, more []addedToken) (*Tokenizer, error) {
	var file fileJSON
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, usererr.New("not a tokenizer.json: %w", err)
	}
	if file.Model == nil {
		return nil, usererr.New("field %q is absent", "model")
	}
	t := &Tokenizer{bos: -1, eos: -1, pad: -1, unknown: -1, special: make(map[int]bool)}
	var err error
	if t.model, err = file.Model.bpe(); err != nil {
		return nil, err
	}
	if t.normalize, err = parseNormalizer(file.Normalizer); err != nil {
		return nil, err
	}
	if t.preTokenize, err = parsePreTokenizer(file.PreTokenizer); err != nil {
		return nil, err
	}
	if t.decoder, err = parseDecoder(file.Decoder); err != nil {
		return nil, err
	}
	if t.prefix, t.suffix, err = parsePostProcessor(file.PostProcessor); err != nil {
		return nil, err
	}
	var list []addedToken
	for _, a := range file.AddedTokens {
		token := a.token()
		if id, found := t.model.ids[token.content]; found { // the vocabulary's id counts, as in Hugging Face's tokenizers
			token.id = int(id)
		}
		list = append(list, token)
	}
	if err := t.setAdded(append(list, more...)); err != nil {
		return nil, err
	}
	t.unknown = int(t.model.unknown)
	return t, nil
}

// setAdded makes the added tokens; later ones replace earlier ones of the same content, as in transformers.
func (t *Tokenizer) setAdded(list []addedToken) error {
	const most = 1 << 24 // no vocabulary is larger; a wild id must not make VocabSize wild
	for _, a := range list {
		if a.id < 0 || a.id >= most {
			return usererr.New("added token %q has id %d, want 0 to %d", a.content, a.id, most-1)
		}
		if a.special {
			t.special[a.id] = true
		}
	}
	t.added = newAddedTokens(list, t.normalize)
	return nil
}

// isNull says that a stage is absent.
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func parseStage(what string, raw json.RawMessage) (stageJSON, error) {
	var s stageJSON
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, usererr.New("%s: %w", what, err)
	}
	return s, nil
}

func unsupported(what string, s stageJSON, want string) error {
	return usererr.New("%s of type %q is not supported, want %s", what, s.Type, want)
}

func parseNormalizer(raw json.RawMessage) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	s, err := parseStage("normalizer", raw)
	if err != nil {
		return nil, err
	}
	switch s.Type {
	case "Sequence":
		var parts []normalizer
		for _, r := range s.Normalizers {
			part, err := parseNormalizer(r)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
		return func(text string) string {
			for _, part := range parts {
				text = part(text)
			}
			return text
		}, nil
	case "Prepend":
		return func(text string) string {
			if text == "" {
				return text
			}
			return s.Prepend + text
		}, nil
	case "Replace":
		if s.Pattern == nil || s.Pattern.String == nil || *s.Pattern.String == "" {
			return nil, usererr.New("normalizer Replace: want a pattern of kind String")
		}
		return func(text string) string { return strings.ReplaceAll(text, *s.Pattern.String, s.Content) }, nil
	case "NFC":
		return norm.NFC.String, nil
	case "NFD":
		return norm.NFD.String, nil
	case "NFKC":
		return norm.NFKC.String, nil
	case "NFKD":
		return norm.NFKD.String, nil
	}
	return nil, unsupported("normalizer", s, "Sequence, Prepend, Replace, NFC, NFD, NFKC or NFKD")
}

func parsePreTokenizer(raw json.RawMessage) (preTokenizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	s, err := parseStage("pre-tokenizer", raw)
	if err != nil {
		return nil, err
	}
	isSet := func(b *bool) bool { return b == nil || *b } // transformers' default for all of these
	switch s.Type {
	case "Sequence":
		var parts []preTokenizer
		for _, r := range s.PreTokenizers {
			part, err := parsePreTokenizer(r)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
		return sequence(parts), nil
	case "Digits":
		return digits(s.Individual), nil
	case "ByteLevel":
		return byteLevel(isSet(s.AddPrefix), isSet(s.UseRegex))
	case "Metaspace":
		scheme := s.PrependScheme
		if scheme == "" { // files from before there was a scheme
			scheme = "always"
			if !isSet(s.AddPrefix) {
				scheme = "never"
			}
		}
		if !slices.Contains([]string{"always", "first", "never"}, scheme) || s.Replacement == "" {
			return nil, usererr.New("pre-tokenizer Metaspace: replacement %q and prepend_scheme %q, want one character and always, first or never",
				s.Replacement, scheme)
		}
		return metaspace(s.Replacement, scheme, isSet(s.Split)), nil
	case "Split":
		if s.Behavior != "Isolated" || s.Invert || s.Pattern == nil || s.Pattern.Regex == nil {
			return nil, usererr.New("pre-tokenizer Split: behavior %q, invert %v; want Isolated, false and a pattern of kind Regex", s.Behavior, s.Invert)
		}
		cut, err := newSplitter(*s.Pattern.Regex)
		if err != nil {
			return nil, err
		}
		return cut.isolated, nil
	}
	return nil, unsupported("pre-tokenizer", s, "Sequence, Digits, ByteLevel, Metaspace or Split")
}

func parseDecoder(raw json.RawMessage) (decoder, error) {
	if isNull(raw) {
		return decoder{}, usererr.New("field %q is absent", "decoder")
	}
	s, err := parseStage("decoder", raw)
	if err != nil {
		return decoder{}, err
	}
	switch s.Type {
	case "ByteLevel":
		return decoder{byteLevel: true}, nil
	case "Metaspace":
		if s.Replacement == "" {
			return decoder{}, usererr.New("decoder Metaspace: replacement is empty")
		}
		bare := s.PrependScheme != "never" && (s.PrependScheme != "" || s.AddPrefix == nil || *s.AddPrefix)
		return decoder{replacement: s.Replacement, firstBare: bare}, nil
	case "Sequence":
		return parseDecoderSequence(s.Decoders)
	}
	return decoder{}, unsupported("decoder", s, "ByteLevel, Metaspace or Sequence")
}

// parseDecoderSequence reads the one sequence that SentencePiece models are converted to.
func parseDecoderSequence(parts []json.RawMessage) (decoder, error) {
	var d decoder
	var types []string
	for _, raw := range parts {
		s, err := parseStage("decoder", raw)
		if err != nil {
			return d, err
		}
		types = append(types, s.Type)
		switch s.Type {
		case "Replace":
			if s.Pattern == nil || s.Pattern.String == nil || *s.Pattern.String == "" || s.Content != " " {
				return d, usererr.New("decoder Replace: want a pattern of kind String that becomes a blank")
			}
			d.replacement = *s.Pattern.String
		case "ByteFallback":
			d.byteFallback = true
		case "Strip":
			if s.Content != " " || s.Stop != 0 || s.Start < 0 {
				return d, usererr.New("decoder Strip: content %q, stop %d; want a blank and 0", s.Content, s.Stop)
			}
			d.strip = s.Start
		}
	}
	switch got := strings.Join(types, ", "); got {
	case "Replace, ByteFallback, Fuse", "Replace, ByteFallback, Fuse, Strip":
		return d, nil
	default:
		return d, usererr.New("decoder Sequence of %s is not supported, want Replace, ByteFallback, Fuse, Strip", got)
	}
}

// parsePostProcessor reads what the template puts before and behind a single text.
func parsePostProcessor(raw json.RawMessage) (prefix, suffix []int, err error) {
	if isNull(raw) {
		return nil, nil, nil
	}
	s, err := parseStage("post-processor", raw)
	if err != nil {
		return nil, nil, err
	}
	switch s.Type {
	case "ByteLevel": // corrects offsets only
		return nil, nil, nil
	case "Sequence":
		for _, r := range s.Processors {
			p, q, err := parsePostProcessor(r)
			if err != nil {
				return nil, nil, err
			}
			prefix, suffix = append(slices.Clone(p), prefix...), append(suffix, q...)
		}
		return prefix, suffix, nil
	case "TemplateProcessing":
		behind := false
		for _, item := range s.Single {
			if item.SpecialToken == nil {
				behind = true
				continue
			}
			token, found := s.SpecialTokens[item.SpecialToken.ID]
			if !found {
				return nil, nil, usererr.New("post-processor: template names %q, which is not among its special_tokens", item.SpecialToken.ID)
			}
			if behind {
				suffix = append(suffix, token.IDs...)
			} else {
				prefix = append(prefix, token.IDs...)
			}
		}
		if !behind {
			return nil, nil, usererr.New("post-processor: template without a place for the text")
		}
		return prefix, suffix, nil
	}
	return nil, nil, unsupported("post-processor", s, "TemplateProcessing, ByteLevel or Sequence")
}

func (m *modelJSON) bpe() (*bpe, error) {
	switch {
	case m.Type != "BPE" && m.Type != "": // old files leave the type out
		return nil, usererr.New("model of type %q is not supported, want BPE", m.Type)
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
			return nil, usererr.New("model: unk_token %q is not in the vocabulary", *m.UnknownToken)
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
			return "", "", usererr.New("came %q, want two tokens with a blank between", text)
		}
		return left, right, nil
	}
	var two []string
	if json.Unmarshal(raw, &two) != nil || len(two) != 2 {
		return "", "", usererr.New("came %s, want two tokens", raw)
	}
	return two[0], two[1], nil
}

// maxVocabulary bounds ids, so that a damaged file cannot make the table of tokens huge.
const maxVocabulary = 1 << 24

func newBPE(vocabulary map[string]int) (*bpe, error) {
	b := &bpe{ids: make(map[string]int32, len(vocabulary)), unknown: -1}
	size := 0
	for token, id := range vocabulary {
		if id < 0 || id >= maxVocabulary {
			return nil, usererr.New("model: token %q has id %d, want 0 to %d", token, id, maxVocabulary-1)
		}
		size = max(size, id+1)
	}
	if size == 0 {
		return nil, usererr.New("model: the vocabulary is empty")
	}
	b.tokens, b.used = make([]string, size), make([]bool, size)
	for token, id := range vocabulary {
		if b.used[id] {
			return nil, usererr.New("model: tokens %q and %q have the same id %d", min(token, b.tokens[id]), max(token, b.tokens[id]), id)
		}
		b.tokens[id], b.used[id], b.ids[token] = token, true, int32(id)
	}
	return b, nil
}

func (m *bpe) addMerge(left, right string, rank int32) error {
	l, foundLeft := m.ids[left]
	r, foundRight := m.ids[right]
	joined, foundJoined := m.ids[left+right]
	if !foundLeft || !foundRight || !foundJoined {
		return usererr.New("%q and %q: want both and their union in the vocabulary", left, right)
	}
	if _, twice := m.merges[pair{l, r}]; !twice { // the earlier one counts, it has the better rank
		m.merges[pair{l, r}] = merge{rank, joined}
	}
	return nil
}

// findBytes finds the tokens <0x00> to <0xFF>.
func (m *bpe) findBytes() error {
	m.byteIDs = new([256]int32)
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
