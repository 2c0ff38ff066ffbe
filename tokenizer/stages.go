package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"

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
	IDs []Token `json:"ids"`
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
func parsePostProcessor(raw json.RawMessage) (prefix, suffix []Token, err error) {
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
