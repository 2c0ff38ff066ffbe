package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// raw is a field of a tokenizer.json, as it stands in the file.
type raw string

func (r raw) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// nested is stage inside of so many Sequences.
func nested(list, stage string, levels int) raw {
	return raw(strings.Repeat(`{"type":"Sequence","`+list+`":[`, levels) + stage + strings.Repeat(`]}`, levels))
}

// sequenceJSON is a Sequence of the stage, so many times.
func sequenceJSON(list, stage string, times int) raw {
	return raw(fmt.Sprintf(`{"type":"Sequence","%s":[%s]}`, list, strings.Join(repeated(stage, times), ",")))
}

func repeated(s string, times int) []string {
	list := make([]string, times)
	for i := range list {
		list[i] = s
	}
	return list
}

func templateJSON(single, tokens string) raw {
	return raw(`{"type":"TemplateProcessing","single":[` + single + `],"special_tokens":{` + tokens + `}}`)
}

func splitJSON(pattern string) raw {
	return raw(`{"type":"Split","pattern":{"Regex":"` + pattern + `"},"behavior":"Isolated","invert":false}`)
}

const (
	doubling  = `{"type":"Replace","pattern":{"String":"a"},"content":"aa"}`
	byteStage = `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}`
	theText   = `{"Sequence":{"id":"A","type_id":0}}`
	special   = `{"SpecialToken":{"id":"x","type_id":0}}`
)

// A tokenizer.json from a stranger is refused in one line of ErrInput, soon and with little memory,
// or it is read and then text is encoded and decoded soon.
func TestHostileTokenizerJSON(t *testing.T) {
	model := func(vocab string) map[string]any {
		return map[string]any{"model": map[string]any{"type": "BPE", "vocab": raw(vocab), "merges": []string{}}}
	}
	field := func(name string, value raw) map[string]any { return map[string]any{name: value} }
	for name, c := range map[string]struct {
		change map[string]any
		says   string // in the line
	}{
		"null normalizer in a Sequence":      {field("normalizer", sequenceJSON("normalizers", "null", 1)), "null"},
		"null behind a normalizer":           {field("normalizer", raw(`{"type":"Sequence","normalizers":[{"type":"NFC"},null]}`)), "entry 1 is null"},
		"null deeper":                        {field("normalizer", nested("normalizers", "null", 3)), "null"},
		"null pre-tokenizer in a Sequence":   {field("pre_tokenizer", sequenceJSON("pretokenizers", "null", 1)), "null"},
		"null post-processor in a Sequence":  {field("post_processor", sequenceJSON("processors", "null", 1)), "null"},
		"null decoder in a Sequence":         {field("decoder", sequenceJSON("decoders", "null", 1)), "null"},
		"null in a template":                 {field("post_processor", templateJSON("null", "")), "entry 0"},
		"null for an id":                     {field("post_processor", templateJSON(special+","+theText, `"x":{"ids":[null]}`)), "null"},
		"deep normalizers":                   {field("normalizer", nested("normalizers", `{"type":"NFC"}`, 4900)), "nested"},
		"deep pre-tokenizers":                {field("pre_tokenizer", nested("pretokenizers", byteStage, 4900)), "nested"},
		"deep post-processors":               {field("post_processor", nested("processors", byteStage, 4900)), "nested"},
		"many stages":                        {field("normalizer", sequenceJSON("normalizers", `{"type":"Replace","pattern":{"String":"a"},"content":"b"}`, 100_000)), "stages"},
		"many empty Sequences":               {field("pre_tokenizer", sequenceJSON("pretokenizers", `{"type":"Sequence","pretokenizers":[]}`, 100_000)), "stages"},
		"many decoders":                      {field("decoder", sequenceJSON("decoders", `{"type":"ByteFallback"}`, 100_000)), "stages"},
		"text doubled 29 times":              {field("normalizer", sequenceJSON("normalizers", doubling, 29)), "long"},
		"text doubled in nested Sequences":   {field("normalizer", raw(`{"type":"Sequence","normalizers":[`+string(sequenceJSON("normalizers", doubling, 10))+`,`+string(sequenceJSON("normalizers", doubling, 10))+`]}`)), "long"},
		"one letter becomes many":            {field("normalizer", raw(`{"type":"Replace","pattern":{"String":"a"},"content":"`+strings.Repeat("a", 1<<20)+`"}`)), "long"},
		"much is put in front":               {field("normalizer", raw(`{"type":"Prepend","prepend":"`+strings.Repeat("a", 1<<20)+`"}`)), "long"},
		"bytes written as characters often":  {field("pre_tokenizer", sequenceJSON("pretokenizers", byteStage, 29)), "long"},
		"a long replacement of blanks":       {field("pre_tokenizer", raw(`{"type":"Metaspace","replacement":"`+strings.Repeat("a", 1<<20)+`"}`)), "one character"},
		"normalizers and pre-tokenizers":     {map[string]any{"normalizer": sequenceJSON("normalizers", doubling, 10), "pre_tokenizer": sequenceJSON("pretokenizers", byteStage, 5)}, "long"},
		"a pattern of many classes":          {field("pre_tokenizer", splitJSON("["+strings.Repeat(`\\W`, 100_000)+"]")), "longer than"},
		"a long pattern":                     {field("pre_tokenizer", splitJSON(strings.Repeat("a*b|", 100_000)+"c")), "longer than"},
		"a template of many tokens":          {field("post_processor", templateJSON(strings.Join(repeated(special, 5000), ",")+","+theText, `"x":{"ids":[`+strings.Join(repeated("7", 5000), ",")+`]}`)), "tokens around"},
		"a negative id in a template":        {field("post_processor", templateJSON(special+","+theText, `"x":{"ids":[-5]}`)), "-5"},
		"an id beyond the vocabulary":        {field("post_processor", templateJSON(theText+","+special, `"x":{"ids":[9]}`)), "id 9"},
		"an id beyond 32 bits":               {field("post_processor", templateJSON(special+","+theText, `"x":{"ids":[4294967301]}`)), "4294967301"},
		"a fraction for an id":               {field("post_processor", templateJSON(special+","+theText, `"x":{"ids":[5.5]}`)), "5.5"},
		"an added token beyond 32 bits":      {field("added_tokens", raw(`[{"id":4294967301,"content":"<s>"}]`)), "4294967301"},
		"an added token's negative id":       {field("added_tokens", raw(`[{"id":-1,"content":"<s>"}]`)), "-1"},
		"an added token far beyond":          {field("added_tokens", raw(`[{"id":16777216,"content":"<s>"}]`)), "16777216"},
		"an added token of a page":           {field("added_tokens", raw(`[{"id":9,"content":"`+strings.Repeat("<s>", 5000)+`"}]`)), "added token 9"},
		"an added token that becomes long":   {map[string]any{"normalizer": sequenceJSON("normalizers", doubling, 10), "added_tokens": raw(`[{"id":9,"content":"aaaaa","normalized":true}]`)}, "added token 9"},
		"a vocabulary of one far id":         {model(`{"a":16777215}`), "gaps"},
		"a vocabulary beyond 32 bits":        {model(`{"a":4294967301}`), "4294967301"},
		"a vocabulary beyond 64 bits":        {model(`{"a":9223372036854775808}`), "9223372036854775808"},
		"a decoder that strips less than no": {field("decoder", strip("-1")), "Strip"},
		"a decoder beyond 64 bits":           {field("decoder", strip("9223372036854775808")), "9223372036854775808"},
	} {
		t.Run(name, func(t *testing.T) {
			data := tinyJSON(t, c.change)
			taken := allocated()
			began := time.Now()
			_, err := parseJSON(data)
			taken = allocated() - taken
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.Is(err, usererr.ErrInput) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%.400s; want one line of ErrInput with %q", err, c.says)
			}
			// Maps of the file's parts take a multiple of its size; nothing takes more.
			if most := uint64(8<<20 + 64*len(data)); taken > most {
				t.Errorf("%d bytes allocated for a file of %d, want at most %d", taken, len(data), most)
			}
			if spent := time.Since(began); spent > 5*time.Second {
				t.Errorf("refused after %s", spent)
			}
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func strip(start string) raw {
	return raw(`{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},` +
		`{"type":"Strip","content":" ","start":` + start + `,"stop":0}]}`)
}

// The decoder Strip takes blanks away, as many as there are, whatever number the file says.
func TestStripEnds(t *testing.T) {
	for start, want := range map[int64]string{0: "  ab ab", 1: " ab ab", 2: "ab ab", 3: "ab ab", math.MaxInt64: "ab ab"} {
		tok, err := parseJSON(tinyJSON(t, map[string]any{"decoder": strip(fmt.Sprint(start)),
			"model": map[string]any{"type": "BPE", "vocab": map[string]int{"▁": 0, "ab": 1}, "merges": []string{}}}))
		if err != nil {
			t.Fatal(err)
		}
		ids := []Token{0, 0, 1, 0, 1}
		if got := tok.Decode(ids, false); got != want {
			t.Errorf("start %d: %q, want %q", start, got, want)
		}
		stream := tok.Stream(false)
		var streamed strings.Builder
		for _, id := range ids {
			streamed.WriteString(stream.Push(id))
		}
		streamed.WriteString(stream.Flush())
		if got := streamed.String(); got != want {
			t.Errorf("start %d, streamed: %q, want %q", start, got, want)
		}
	}
}

// What published tokenizers have stays far from the limits.
func TestLimitsHaveRoom(t *testing.T) {
	for name, change := range map[string]map[string]any{
		"31 levels":          {"normalizer": nested("normalizers", `{"type":"NFC"}`, 31)},
		"every growing kind": {"normalizer": raw(`{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}`), "pre_tokenizer": sequenceJSON("pretokenizers", byteStage, 2)},
		"ten replacements":   {"normalizer": sequenceJSON("normalizers", doubling, 10)},
		"a hole of 60,000":   {"model": raw(`{"type":"BPE","vocab":{"a":0,"b":60000},"merges":[]}`), "added_tokens": raw(`[]`)},
		"an added token far": {"added_tokens": raw(`[{"id":16777215,"content":"<s>","special":true}]`)},
		"a template":         {"post_processor": templateJSON(special+","+special+","+theText+","+special, `"x":{"ids":[7,8]}`)},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := parseJSON(tinyJSON(t, change))
			if err != nil {
				t.Fatal(err)
			}
			_ = tok.Decode(tok.Encode("abcd <s> ab"), false)
		})
	}
}

// stageSeeds have every kind of stage, alone and in Sequences, and what was once let pass.
func stageSeeds() []map[string]any {
	return []map[string]any{
		{"normalizer": raw(`{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"NFD"},{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}`)},
		{"pre_tokenizer": raw(`{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},` + byteStage + `]}`)},
		{"pre_tokenizer": splitJSON(`a.*z|[^\\S\\n]+$|\\w*|[[:alpha:]]?`)},
		{"pre_tokenizer": raw(`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}`)},
		{"post_processor": raw(`{"type":"Sequence","processors":[` + byteStage + `,` + string(templateJSON(special+","+theText, `"x":{"ids":[7]}`)) + `]}`)},
		{"decoder": strip("1")},
		{"decoder": strip("9223372036854775807")},
		{"normalizer": sequenceJSON("normalizers", "null", 1)},
		{"pre_tokenizer": sequenceJSON("pretokenizers", "null", 1)},
		{"normalizer": sequenceJSON("normalizers", doubling, 12)},
	}
}
