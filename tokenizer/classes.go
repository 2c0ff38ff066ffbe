package tokenizer

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// class is what makes the stages of a folder with a tokenizer.json. Version 5 of transformers makes
// those of some classes anew, whatever the file says about them; only vocabulary, merges, added
// tokens and post-processor are the file's then.
type class int

const (
	classFile      class = iota // the file's stages
	classLlama                  // LlamaTokenizer: SentencePiece's blanks
	classCodeLlama              // the same; "legacy" is not looked at
	classGPT2                   // bytes, cut by GPT-2's pattern
	classQwen2                  // bytes, cut by Qwen2's pattern, of text in NFC
)

// modelSettings are the fields of a config.json by which transformers chooses a class.
type modelSettings struct {
	Type  string `json:"model_type"`
	Class string `json:"tokenizer_class"`
}

// readModelSettings leaves them empty where there is no config.json, or none that can be read: the
// model's own reader says so.
func readModelSettings(dir string) modelSettings {
	var m modelSettings
	if data, err := filesys.Read(filepath.Join(dir, "config.json")); err != nil || json.Unmarshal(data, &m) != nil {
		return modelSettings{}
	}
	return m
}

// classOf follows AutoTokenizer.from_pretrained of transformers 5.24. byteLevel says that the
// tokenizer.json has a stage ByteLevel.
func classOf(config settings, model modelSettings, byteLevel bool) class {
	name := config.Class
	if name == "" {
		name = model.Class
	}
	name = strings.TrimSuffix(name, "Fast")
	switch {
	case model.Type == "mistral": // its published files name classes that do not fit them
		return classFile
	case model.Type == "qwen2", model.Type == "qwen3" && name == "":
		return classQwen2
	}
	switch name {
	case "LlamaTokenizer":
		if byteLevel { // Llama-3's files name this class, which does not fit them
			return classFile
		}
		return classLlama
	case "CodeLlamaTokenizer":
		return classCodeLlama
	case "GPT2Tokenizer":
		return classGPT2
	case "Qwen2Tokenizer":
		return classQwen2
	}
	return classFile
}

// defaults fills in the names of special tokens that a class has where the settings do not speak of
// them.
func (c class) defaults(config settings) settings {
	fill := func(name string, to ...*tokenName) {
		for _, n := range to {
			if !n.set {
				n.name = name
			}
		}
	}
	const end = "<|endoftext|>"
	switch c {
	case classLlama, classCodeLlama:
		fill("<unk>", &config.Unknown)
		fill("<s>", &config.BOS)
		fill("</s>", &config.EOS)
	case classGPT2:
		fill(end, &config.Unknown, &config.BOS, &config.EOS)
	case classQwen2:
		fill(end, &config.Unknown, &config.EOS, &config.Pad)
	}
	return config
}

// prefix is where blanks are put in front. For a class that is not of Llama it is about a
// tokenizer.model without a tokenizer.json, and "legacy" is its default.
func (c class) prefix(config settings) prefixed {
	ofLlama := c == classLlama || c == classCodeLlama
	switch {
	case ofLlama && !config.AddPrefixSpace.or(true):
		return prefixNone
	case c != classCodeLlama && config.Legacy.or(!ofLlama):
		return prefixEach
	default:
		return prefixFirst
	}
}

// hasByteLevel says whether a pre-tokenizer or decoder is ByteLevel, or a Sequence with one.
func (f *fileJSON) hasByteLevel() bool {
	for _, raw := range []json.RawMessage{f.PreTokenizer, f.Decoder} {
		var s stageJSON
		if isNull(raw) || json.Unmarshal(raw, &s) != nil {
			continue
		}
		for _, part := range append(append(s.PreTokenizers, s.Decoders...), raw) {
			var one struct {
				Type string `json:"type"`
			}
			if json.Unmarshal(part, &one) == nil && one.Type == "ByteLevel" {
				return true
			}
		}
	}
	return false
}

// remake puts the stages of a class in the place of the file's.
func (c class) remake(f *fileJSON, config settings) {
	if c == classFile || f.Model == nil {
		return
	}
	m := *f.Model
	m.Type, m.Dropout, m.UnknownToken, m.ContinuingSubwordPrefix, m.EndOfWordSuffix = "BPE", nil, nil, "", ""
	m.FuseUnknown, m.ByteFallback, m.IgnoreMerges = false, false, false
	switch c {
	case classLlama, classCodeLlama:
		if unknown := c.defaults(config).Unknown.name; c == classCodeLlama && m.has(unknown) {
			m.UnknownToken = &unknown
		}
		m.FuseUnknown, m.ByteFallback = true, m.hasBytes()
		c.remakeBlanks(f, config)
	case classGPT2:
		f.Normalizer = nil
		f.PreTokenizer = byteLevelJSON(config.AddPrefixSpace.or(false), true)
		f.Decoder = byteLevelJSON(true, true)
	case classQwen2:
		pattern, _ := json.Marshal(patternQwen2)
		f.Normalizer = json.RawMessage(`{"type":"NFC"}`)
		f.PreTokenizer = json.RawMessage(fmt.Sprintf(`{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":%s},"behavior":"Isolated","invert":false},%s]}`,
			pattern, byteLevelJSON(config.AddPrefixSpace.or(false), false)))
		f.Decoder = byteLevelJSON(true, true)
	}
	f.Model = &m
	if config.Added != nil {
		f.AddedTokens = nil
	}
}

// remakeBlanks makes the stages that write blanks as SentencePiece does.
//
// "legacy" puts one in front of every piece of text between special tokens, as SentencePiece and
// version 4 did. Version 5 does not where the piece begins with a blank already; here the stages
// that version 4 wrote for it are left as they are, so that ids remain SentencePiece's.
func (c class) remakeBlanks(f *fileJSON, config settings) {
	scheme := c.prefix(config)
	strip := `,{"type":"Strip","content":" ","start":1,"stop":0}`
	if scheme == prefixNone && c == classLlama {
		strip = ""
	}
	f.Decoder = json.RawMessage(fmt.Sprintf(`{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"%s"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}%s]}`, spaceMark, strip))
	metaspace := map[prefixed]string{prefixNone: "never", prefixFirst: "first", prefixEach: "always"}[scheme]
	if scheme == prefixEach && f.hasPrepend() {
		return
	}
	f.Normalizer = nil
	f.PreTokenizer = json.RawMessage(fmt.Sprintf(`{"type":"Metaspace","replacement":"%s","prepend_scheme":%q,"split":false}`, spaceMark, metaspace))
}

// hasPrepend says whether the normalizer is that of SentencePiece's converters before Metaspace had
// schemes: a Sequence that prepends a blank.
func (f *fileJSON) hasPrepend() bool {
	var s stageJSON
	if isNull(f.Normalizer) || json.Unmarshal(f.Normalizer, &s) != nil || len(s.Normalizers) == 0 || !isNull(f.PreTokenizer) {
		return false
	}
	var first stageJSON
	return json.Unmarshal(s.Normalizers[0], &first) == nil && first.Type == "Prepend" && first.Prepend == spaceMark
}

func byteLevelJSON(prefixSpace, regex bool) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"ByteLevel","add_prefix_space":%v,"trim_offsets":true,"use_regex":%v}`, prefixSpace, regex))
}

// hasBytes says whether the vocabulary has the tokens <0x00> to <0xFF>; without them transformers
// knows no byte fallback, whatever it was told.
func (m *modelJSON) hasBytes() bool {
	var names []string
	for b := range 256 {
		names = append(names, fmt.Sprintf("<0x%02X>", b))
	}
	return m.has(names...)
}

// has says whether the vocabulary has all these tokens.
func (m *modelJSON) has(names ...string) bool {
	var vocabulary map[string]json.RawMessage
	if json.Unmarshal(m.Vocab, &vocabulary) != nil {
		return false
	}
	for _, name := range names {
		if _, found := vocabulary[name]; !found {
			return false
		}
	}
	return true
}
