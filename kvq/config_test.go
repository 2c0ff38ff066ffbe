package kvq_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// Saved caches and docs/quality.jsonl have configurations as JSON: reading one and writing it again
// gives the same bytes.
func TestConfigJSONStays(t *testing.T) {
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(root, "docs", "quality.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := 0
	for in := bufio.NewScanner(file); in.Scan(); lines++ {
		var row struct{ Config string }
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		var c kvq.Config
		if err := json.Unmarshal([]byte(row.Config), &c); err != nil {
			t.Fatalf("%s: %v", row.Config, err)
		}
		again, err := json.Marshal(c)
		if err != nil || string(again) != row.Config {
			t.Errorf("written as %s (error %v), was %s", again, err, row.Config)
		}
	}
	if lines < 40 {
		t.Errorf("%d lines, want more than 40", lines)
	}
}

// Every quantizer survives its way through JSON, for keys and for values.
func TestQuantizersInJSON(t *testing.T) {
	for _, q := range append(kvq.Quantizers(), "") {
		for _, want := range []kvq.Config{{Backend: kvq.Blocks, QuantizerKey: q}, {Backend: kvq.Blocks, QuantizerValue: q}} {
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var got kvq.Config
			if err := json.Unmarshal(text, &got); err != nil || got != want {
				t.Errorf("%s: got %+v (error %v), want %+v", text, got, err, want)
			}
		}
	}
	var c kvq.Config
	if err := json.Unmarshal([]byte(`{"CodeKey":"symmetric","RangeKey":"unbiased"}`), &c); err == nil {
		t.Errorf("a code and a range were read as %+v", c)
	}
	if err := json.Unmarshal([]byte(`{"Magic":1}`), &c); err == nil {
		t.Error("an unknown setting was read")
	}
}

// Every backend names its own quantizer, and only blocks takes others.
func TestPolicyTimesQuantizer(t *testing.T) {
	own := map[kvq.Backend]kvq.Quantizer{kvq.Quanto: kvq.MinMax, kvq.HQQ: kvq.HalfQuadratic, kvq.Blocks: kvq.MinMax}
	for backend, usual := range own {
		for _, q := range kvq.Quantizers() {
			c := kvq.Config{Backend: backend, NBits: 4, QGroupSize: 32, ResidualLength: 8, QuantizerKey: q, QuantizerValue: q}
			err := c.Validate(64)
			if want := backend == kvq.Blocks || q == usual; (err == nil) != want {
				t.Errorf("%s with %s: error %v, want it taken: %v", backend, q, err, want)
			}
			if err != nil && (!errors.Is(err, kvq.ErrInput) || !strings.Contains(err.Error(), string(q))) {
				t.Errorf("%s with %s: error %v, want one of bad input that names it", backend, q, err)
			}
			plain := kvq.Config{Backend: backend, NBits: 4, QGroupSize: 32, ResidualLength: 8}
			if same := c.String() == plain.String(); same != (q == usual) {
				t.Errorf("%s with %s is called %q, without a quantizer %q", backend, q, c, plain)
			}
		}
	}
}

// Scales of tokens go with keys per channel alone; they have a name, survive JSON, and cost a byte
// a token and head. A configuration without them is written as it always was.
func TestTokenScales(t *testing.T) {
	c := kvq.Config{Backend: kvq.Blocks, NBits: 2, QGroupSize: 64, AxisKey: kvq.PerChannel, Scales: kvq.Scale8}
	shape := kvq.Shape{Layers: 3, Batch: 2, KVHeads: 5, HeadDim: 64, Capacity: 512, DType: dtypes.Float32}
	plain, err := kvq.New(c, shape)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(c); err != nil || strings.Contains(string(text), "Token") {
		t.Errorf("without scales of tokens: %s (error %v)", text, err)
	}
	c.TokenScales = true
	with, err := kvq.New(c, shape)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := with.BitsPerValue(), plain.BitsPerValue()+8./64/2; got != want { // keys alone
		t.Errorf("%v bits a value, want %v", got, want)
	}
	more, less := with.Memory(), plain.Memory()
	if want := int64(3 * 2 * 5 * with.Inside().CodeSlots); more.Scales-less.Scales != want || more.Total()-less.Total() != want {
		t.Errorf("%d bytes of scales more, %d in all, want %d", more.Scales-less.Scales, more.Total()-less.Total(), want)
	}
	if want := "blocks keys 2 bit g64 per channel and token, values 2 bit g64 scales 8bit r0"; c.String() != want {
		t.Errorf("called %q, want %q", c, want)
	}
	text, err := json.Marshal(c)
	var again kvq.Config
	if err != nil || json.Unmarshal(text, &again) != nil || again != c {
		t.Errorf("%s: read as %+v (error %v), want %+v", text, again, err, c)
	}
	for name, change := range map[string]func(c *kvq.Config){
		`want keys in groups per channel (axis -1), got per token (axis 0)`:            func(c *kvq.Config) { c.AxisKey = kvq.PerToken },
		`want keys in groups per channel, got int8, which has a scale a token already`: func(c *kvq.Config) { c.QuantizerKey = kvq.Int8 },
		`scales of tokens need backend "blocks", got "quanto"`:                         func(c *kvq.Config) { c.Backend, c.ResidualLength = kvq.Quanto, 64 },
		"kvq.Config: a full-precision cache (no Backend) takes no other settings, got": func(c *kvq.Config) { *c = kvq.Config{TokenScales: true} },
	} {
		bad := c
		change(&bad)
		if err := bad.Validate(64); !errors.Is(err, kvq.ErrInput) || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v, want %q", bad, err, name)
		}
	}
}

// Every width of codes in the table goes with every quantizer, as presets use them, and a number
// beside them is refused with all of them named.
func TestWidths(t *testing.T) {
	shape := kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 64, Capacity: 512, DType: dtypes.Float32}
	for bits := -1; bits < 70; bits++ {
		for _, q := range kvq.Quantizers() {
			preset, err := kvq.Preset("quality")
			if err != nil {
				t.Fatal(err)
			}
			preset.NBitsKey, preset.NBitsValue, preset.QuantizerKey, preset.QuantizerValue = bits, bits, q, q
			_, err = kvq.New(preset, shape)
			perHead := q == kvq.Int8 || q == kvq.Float8
			// symmetric codes have a middle one, which a single bit has no room for
			middle := bits == 1 && q == kvq.Symmetric
			if allowed := perHead || bits == 0 || slices.Contains(kvq.Widths(), bits) && !middle; (err == nil) != allowed {
				t.Errorf("%d bits, %s: error %v, want them allowed: %v", bits, q, err, allowed)
			}
			want := fmt.Sprintf("kvq.Config.NBitsKey: want %s, got %d", usererr.OneOf(kvq.Widths()), bits)
			if middle {
				want = "kvq.Config.NBits: symmetric codes have a middle one for 0, want at least 2 bits, got 1"
			}
			if err != nil && err.Error() != want {
				t.Errorf("%d bits, %s: %q, want %q", bits, q, err, want)
			}
		}
	}
}

// The documents name every width that there is.
func TestNotationNamesEveryWidth(t *testing.T) {
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "notation.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := "here " + strings.ReplaceAll(strings.Trim(fmt.Sprint(kvq.Widths()), "[]"), " ", ", ")
	if !strings.Contains(string(text), want) {
		t.Errorf("docs/notation.md does not say %q of NBits", want)
	}
}
