package tokenizer

import "golang.org/x/text/unicode/norm"

// ggufPreTokenizer is what a value of tokenizer.ggml.pre stands for.
type ggufPreTokenizer struct {
	// patterns cut the text one after the other: each cuts what the one before left.
	patterns     []string
	normalize    normalizer // nil: none
	ignoreMerges bool       // a word that is a token as it stands is that token
	addBOS       bool       // unless tokenizer.ggml.add_bos_token says otherwise
}

// Patterns that several names share.
const (
	patternNumber   = `\p{N}`
	patternNumbers3 = `\p{N}{1,3}`
	// patternQwen35 is Qwen2's with combining marks as parts of words.
	patternQwen35 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// patternTekken is Mistral's, since Mistral-Nemo: words are cut where lower case turns to
	// upper.
	patternTekken = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// patternGPT4o is Tekken's with contractions and numbers of up to three digits.
	patternGPT4o   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternBailing = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	patternSeed    = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternMiniCPM = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternPoro    = ` ?[^(\s|.,!?…。，、।۔،)]+`
	// DeepSeek's: its first models name the letters of alphabets that have cases.
	patternCasedLetters = `\s?[A-Za-z\x{00B5}\x{00C0}-\x{00D6}\x{00D8}-\x{00F6}\x{00F8}-\x{01BA}\x{01BC}-\x{01BF}\x{01C4}-\x{0293}\x{0295}-\x{02AF}\x{0370}-\x{0373}\x{0376}\x{0377}\x{037B}-\x{037D}\x{037F}\x{0386}\x{0388}-\x{038A}\x{038C}\x{038E}-\x{03A1}\x{03A3}-\x{03F5}\x{03F7}-\x{0481}\x{048A}-\x{052F}\x{0531}-\x{0556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+`
	patternHan          = `[一-龥ࠀ-一가-퟿]+`
	patternDeepSeek3    = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)

// Kinds that several names share.
var (
	preGPT2      = ggufPreTokenizer{patterns: []string{patternGPT2}}
	preSmolLM    = ggufPreTokenizer{patterns: []string{patternNumber, patternGPT2}}
	preLlama3    = ggufPreTokenizer{patterns: []string{patternLlama3}, ignoreMerges: true, addBOS: true}
	preSmaug     = ggufPreTokenizer{patterns: []string{patternLlama3}}
	preQwen2     = ggufPreTokenizer{patterns: []string{patternQwen2}}
	preGPT4o     = ggufPreTokenizer{patterns: []string{patternGPT4o}}
	preBailing   = ggufPreTokenizer{patterns: []string{patternBailing}}
	preDeepSeek3 = ggufPreTokenizer{patterns: []string{patternNumbers3, `[一-龥぀-ゟ゠-ヿ]+`, patternDeepSeek3}}
	// preDefault is for files of no name, or of the name default: their converters did not know the
	// tokenizer, so this is llama.cpp's guess and may differ from the model's own.
	preDefault = ggufPreTokenizer{patterns: []string{`[\p{P}\$\+<=>\^~\|]+`, patternGPT2, `\p{N}+`, `[0-9][0-9][0-9]`}}
)

// ggufPreTokenizers are the values of tokenizer.ggml.pre that this package knows, by the names in
// llama.cpp (src/llama-vocab.cpp), with the patterns of that file, or those of the model's
// tokenizer.json where its comments quote them. GGUF files do not say how text is normalized
// before: Qwen2's is as in its own tokenizer.json.
var ggufPreTokenizers = map[string]ggufPreTokenizer{
	"": preDefault, "default": preDefault,

	"llama3": preLlama3, "llama-v3": preLlama3, "llama-bpe": preLlama3, "falcon3": preLlama3, "falcon-h1": preLlama3,
	"pixtral": preLlama3, "midm-2.0": preLlama3, "lfm2": preLlama3, "jina-v5-nano": preLlama3,
	"dbrx": preSmaug, "smaug-bpe": preSmaug, "glm4": preSmaug, "chatglm-bpe": preSmaug,

	"tekken": {patterns: []string{patternTekken}, ignoreMerges: true, addBOS: true},
	"gpt-4o": preGPT4o, "llama4": preGPT4o, "kanana2": preGPT4o, "talkie": preGPT4o, "minimax-m2": preGPT4o,

	"qwen2":            {patterns: []string{patternQwen2}, normalize: norm.NFC.String},
	"deepseek-r1-qwen": preQwen2, "kormo": preQwen2, "f2llmv2": preQwen2, "megrez": preQwen2, "stablelm2": preQwen2,
	"hunyuan": preQwen2, "solar-open": preQwen2, "grok-2": preQwen2,
	"laguna":     {patterns: []string{`[^\n]+|[\n]+`, patternQwen2}},
	"qwen35":     {patterns: []string{patternQwen35}},
	"minicpm5":   {patterns: []string{patternNumbers3, patternMiniCPM}, ignoreMerges: true},
	"seed-coder": {patterns: []string{patternSeed}},
	"bailingmoe": preBailing, "bailingmoe2": preBailing, "llada-moe": preBailing,

	"gpt-2": preGPT2, "phi-2": preGPT2, "mpt": preGPT2, "olmo": preGPT2, "jais": preGPT2, "trillion": preGPT2,
	"granite-docling": preGPT2, "gigachat": preGPT2, "a.x-4.0": preGPT2, "mellum": preGPT2, "modern-bert": preGPT2,
	"exaone4": preGPT2, "jina-es": preGPT2, "jina-de": preGPT2, "jina-v2-es": preGPT2, "jina-v2-de": preGPT2,
	"smollm": preSmolLM, "starcoder": preSmolLM, "refact": preSmolLM, "command-r": preSmolLM, "codeshell": preSmolLM,
	"exaone": preSmolLM, "minerva-7b": preSmolLM, "mellum2": preSmolLM,

	"deepseek-llm":   {patterns: []string{`[\r\n]`, patternCasedLetters, `\s?[!-/:-~！-／：-～‘-‟　-。]+`, `\s+$`, patternHan, `\p{N}+`}},
	"deepseek-coder": {patterns: []string{`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, patternHan, patternNumber}},
	"deepseek-v3":    preDeepSeek3, "hunyuan-dense": preDeepSeek3, "joyai-llm": preDeepSeek3, "hy_v4": preDeepSeek3,

	"falcon": {patterns: []string{"[\\p{P}\\$\\+<=>\\^~\\|`]+", patternGPT2, `[0-9][0-9][0-9]`}},
	"bloom":  {patterns: []string{patternPoro}}, "poro-chat": {patterns: []string{patternPoro}}, "gpt3-finnish": {patterns: []string{patternPoro}},
	"viking": {patterns: []string{patternPoro, patternNumber}},
}

// preTokenizer cuts the text by the patterns, then writes bytes as characters.
func (p ggufPreTokenizer) preTokenizer() (preTokenizer, error) {
	var parts []preTokenizer
	for _, pattern := range p.patterns {
		if pattern == patternNumber { // the same cuts without an expression
			parts = append(parts, digits(true))
			continue
		}
		cut, err := newSplitter(pattern)
		if err != nil {
			return nil, err
		}
		parts = append(parts, cut.isolated)
	}
	bytes, err := byteLevel(false, false)
	if err != nil {
		return nil, err
	}
	return sequence(append(parts, bytes)), nil
}
