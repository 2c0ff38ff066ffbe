package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

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
	IDs []templateToken `json:"ids"`
}

// templateToken is an id that must be written as one: null, which JSON would read as 0, is refused.
type templateToken Token

func (t *templateToken) UnmarshalJSON(data []byte) error {
	if isNull(data) {
		return usererr.New("an id is null, want a number")
	}
	if err := json.Unmarshal(data, (*Token)(t)); err != nil {
		return usererr.New("an id is %.40s, want a whole number of 32 bits", data)
	}
	return nil
}

// A tokenizer.json comes from a stranger. Its stages are bounded when they are read, because
// nothing can fail later, when text is encoded.
const (
	maxStageDepth     = 32   // of Sequences in each other: each level is parsed anew
	maxStages         = 256  // of all kinds together: each reads the whole text
	maxGrowth         = 4096 // how many times as long the stages can make a text
	maxTemplateTokens = 256  // that a template puts around a text
)

// stageReader reads the stages of one tokenizer and counts what they can cost.
type stageReader struct {
	depth, stages int
	growth        float64 // at most this many bytes come out of a byte of text; 0 stands for 1
}

// enter counts a stage, before it is parsed; leave ends it.
func (r *stageReader) enter(what string) error {
	r.depth++
	r.stages++
	switch {
	case r.depth > maxStageDepth:
		return usererr.New("%s: Sequences are nested deeper than %d levels", what, maxStageDepth)
	case r.stages > maxStages:
		return usererr.New("%s: more than %d stages in all", what, maxStages)
	}
	return nil
}

func (r *stageReader) leave() { r.depth-- }

// grow counts that a stage can make a text this many times as long.
func (r *stageReader) grow(what string, times float64) error {
	if r.growth = max(r.growth, 1) * max(times, 1); r.growth > maxGrowth {
		return usererr.New("%s: the stages can make a text more than %d times as long", what, maxGrowth)
	}
	return nil
}

// sequenceOf reads the stages of a Sequence.
func sequenceOf[S any](what string, raw []json.RawMessage, read func(json.RawMessage) (S, error)) ([]S, error) {
	var parts []S
	for i, r := range raw {
		if isNull(r) {
			return nil, usererr.New("%s Sequence: entry %d is null, want a stage", what, i)
		}
		part, err := read(r)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// What normalization forms can make of a byte of UTF-8:
// https://www.unicode.org/faq/normalization.html ("maximum expansion factor").
const (
	canonicalGrowth     = 3
	compatibilityGrowth = 11
)

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
	return usererr.New("%s of type %.60q is not supported, want %s", what, s.Type, want)
}

func (r *stageReader) normalizer(raw json.RawMessage) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	if err := r.enter("normalizer"); err != nil {
		return nil, err
	}
	defer r.leave()
	s, err := parseStage("normalizer", raw)
	if err != nil {
		return nil, err
	}
	switch s.Type {
	case "Sequence":
		parts, err := sequenceOf("normalizer", s.Normalizers, r.normalizer)
		if err != nil {
			return nil, err
		}
		return func(text string) string {
			for _, part := range parts {
				text = part(text)
			}
			return text
		}, nil
	case "Prepend":
		if err := r.grow("normalizer Prepend", float64(1+len(s.Prepend))); err != nil {
			return nil, err
		}
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
		if err := r.grow("normalizer Replace", float64(len(s.Content))/float64(len(*s.Pattern.String))); err != nil {
			return nil, err
		}
		return func(text string) string { return strings.ReplaceAll(text, *s.Pattern.String, s.Content) }, nil
	case "NFC":
		return norm.NFC.String, r.grow("normalizer", canonicalGrowth)
	case "NFD":
		return norm.NFD.String, r.grow("normalizer", canonicalGrowth)
	case "NFKC":
		return norm.NFKC.String, r.grow("normalizer", compatibilityGrowth)
	case "NFKD":
		return norm.NFKD.String, r.grow("normalizer", compatibilityGrowth)
	}
	return nil, unsupported("normalizer", s, "Sequence, Prepend, Replace, NFC, NFD, NFKC or NFKD")
}

func (r *stageReader) preTokenizer(raw json.RawMessage) (preTokenizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	if err := r.enter("pre-tokenizer"); err != nil {
		return nil, err
	}
	defer r.leave()
	s, err := parseStage("pre-tokenizer", raw)
	if err != nil {
		return nil, err
	}
	isSet := func(b *bool) bool { return b == nil || *b } // transformers' default for all of these
	switch s.Type {
	case "Sequence":
		parts, err := sequenceOf("pre-tokenizer", s.PreTokenizers, r.preTokenizer)
		if err != nil {
			return nil, err
		}
		return sequence(parts), nil
	case "Digits":
		return digits(s.Individual), nil
	case "ByteLevel":
		// a blank before a word, two bytes for one
		if err := r.grow("pre-tokenizer ByteLevel", 2*2); err != nil {
			return nil, err
		}
		return byteLevel(isSet(s.AddPrefix), isSet(s.UseRegex))
	case "Metaspace":
		scheme := s.PrependScheme
		if scheme == "" { // files from before there was a scheme
			scheme = "always"
			if !isSet(s.AddPrefix) {
				scheme = "never"
			}
		}
		if !slices.Contains([]string{"always", "first", "never"}, scheme) || utf8.RuneCountInString(s.Replacement) != 1 {
			return nil, usererr.New("pre-tokenizer Metaspace: replacement %.60q and prepend_scheme %.60q, want one character and always, first or never",
				s.Replacement, scheme)
		}
		// for a blank, and before a word
		if err := r.grow("pre-tokenizer Metaspace", float64(2*len(s.Replacement))); err != nil {
			return nil, err
		}
		return metaspace(s.Replacement, scheme, isSet(s.Split)), nil
	case "Split":
		if s.Behavior != "Isolated" || s.Invert || s.Pattern == nil || s.Pattern.Regex == nil {
			return nil, usererr.New("pre-tokenizer Split: behavior %.60q, invert %v; want Isolated, false and a pattern of kind Regex", s.Behavior, s.Invert)
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
		return decoder{}, usererr.New("field %.60q is absent", "decoder")
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
	if len(parts) > maxStages {
		return d, usererr.New("decoder Sequence of %d stages, want at most %d", len(parts), maxStages)
	}
	var types []string
	for i, raw := range parts {
		if isNull(raw) {
			return d, usererr.New("decoder Sequence: entry %d is null, want a stage", i)
		}
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
				return d, usererr.New("decoder Strip: content %.60q, stop %d; want a blank and 0", s.Content, s.Stop)
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

// surroundings are what a post-processor puts before and behind a single text.
type surroundings struct{ prefix, suffix []Token }

// postProcessor reads a template. Whether the vocabulary has its ids is checked when that is known.
func (r *stageReader) postProcessor(raw json.RawMessage) (around surroundings, err error) {
	if isNull(raw) {
		return around, nil
	}
	if err := r.enter("post-processor"); err != nil {
		return around, err
	}
	defer r.leave()
	s, err := parseStage("post-processor", raw)
	if err != nil {
		return around, err
	}
	switch s.Type {
	case "ByteLevel": // corrects offsets only
		return around, nil
	case "Sequence":
		parts, err := sequenceOf("post-processor", s.Processors, r.postProcessor)
		if err != nil {
			return around, err
		}
		for _, p := range parts {
			around.prefix = append(slices.Clone(p.prefix), around.prefix...)
			around.suffix = append(around.suffix, p.suffix...)
		}
		return around, nil
	case "TemplateProcessing":
		behind := false
		for i, item := range s.Single {
			if item.SpecialToken == nil {
				if item.Sequence == nil {
					return around, usererr.New("post-processor: entry %d of the template is no SpecialToken and no Sequence", i)
				}
				behind = true
				continue
			}
			token, found := s.SpecialTokens[item.SpecialToken.ID]
			if !found {
				return around, usererr.New("post-processor: template names %.60q, which is not among its special_tokens", item.SpecialToken.ID)
			}
			if len(around.prefix)+len(around.suffix)+len(token.IDs) > maxTemplateTokens {
				return around, usererr.New("post-processor: the template puts more than %d tokens around a text", maxTemplateTokens)
			}
			for _, id := range token.IDs {
				if behind {
					around.suffix = append(around.suffix, Token(id))
				} else {
					around.prefix = append(around.prefix, Token(id))
				}
			}
		}
		if !behind {
			return around, usererr.New("post-processor: template without a place for the text")
		}
		return around, nil
	}
	return around, unsupported("post-processor", s, "TemplateProcessing, ByteLevel or Sequence")
}
