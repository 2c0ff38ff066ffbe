package kvq_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/usererr"
	. "github.com/kvqbook/kvqbook/kvq"
)

// checkFile saves and loads the cache and goes on with what was loaded: bit-exact, and the same
// answers.
func checkFile(t *testing.T, r *recording) {
	path := filepath.Join(t.TempDir(), "cache.safetensors")
	if err := Save(path, r.plan, r.state); err != nil {
		t.Fatal(err)
	}
	plan, state, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Config() != r.plan.Config() || !plan.Shape().Equal(r.plan.Shape()) {
		t.Errorf("loaded %+v for %+v, saved %+v for %+v", plan.Config(), plan.Shape(), r.plan.Config(), r.plan.Shape())
	}
	for i, a := range plan.Arrays() {
		if !bytes.Equal(bytesOf(t, state[i]), bytesOf(t, r.state[i])) {
			t.Errorf("array %s came back with other bytes", a.Name)
		}
	}
	loaded, kept := r.session.fork(), r.session.fork()
	loaded.t, kept.t, loaded.state = t, t, state
	loaded.step(1)
	kept.step(1)
	for layer := range kept.out {
		if !slices.Equal(loaded.out[layer].Data, kept.out[layer].Data) {
			t.Errorf("layer %d answers otherwise after loading", layer)
		}
	}
}

func bytesOf(t testing.TB, x *tensors.Tensor) (out []byte) {
	t.Helper()
	if err := x.ConstBytes(func(data []byte) { out = slices.Clone(data) }); err != nil {
		t.Fatal(err)
	}
	return out
}

// smallFile is a saved cache of a few hundred bytes, made without a backend: arrays of counting
// bytes.
func smallFile(t testing.TB) (path string, p *Plan, state []*tensors.Tensor) {
	t.Helper()
	return smallFileOf(t, Config{Backend: Blocks, NBits: 3, QGroupSize: 8, ResidualLength: 1, Sinks: 1, Scales: Scale8})
}

// withTokenScales is a configuration with all that a file can hold.
var withTokenScales = Config{Backend: Blocks, NBits: 3, QGroupSizeKey: 32, QGroupSizeValue: 8, AxisKey: PerChannel, ResidualLength: 1, Sinks: 1,
	Scales: Scale8, TokenScales: true}

func smallFileOf(t testing.TB, config Config) (path string, p *Plan, state []*tensors.Tensor) {
	t.Helper()
	p, err := New(config, Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 8, Capacity: 8, DType: dtypes.Float16})
	if err != nil {
		t.Fatal(err)
	}
	// Three tokens: a sink, and two in a window of 33.
	counters := map[string][]int32{"length": {3}, "start": {0}, "next": {1}, "used": {0}, "codeIndex": nil, "exactIndex": {0, -1, 1, 2}}
	for _, a := range p.Arrays() {
		x := tensors.FromShape(a.Shape)
		if err := x.MutableBytes(func(data []byte) {
			for i := range data {
				data[i] = byte(i)
			}
			values, counts := counters[a.Name]
			for i := 0; counts && i < len(data); i += 4 {
				v := int32(-1)
				if i/4 < len(values) {
					v = values[i/4]
				}
				binary.LittleEndian.PutUint32(data[i:], uint32(v))
			}
		}); err != nil {
			t.Fatal(err)
		}
		state = append(state, x)
	}
	path = filepath.Join(t.TempDir(), "small cache")
	if err := Save(path, p, state); err != nil {
		t.Fatal(err)
	}
	return path, p, state
}

// The layout on disk is what other readers of safetensors expect.
func TestSavedFileIsSafetensors(t *testing.T) {
	path, p, state := smallFile(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int(binary.LittleEndian.Uint64(data))
	var header map[string]json.RawMessage
	var metadata struct{ Format, Version string }
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(header["__metadata__"], &metadata); err != nil || n%8 != 0 || metadata.Format != "kvq-cache" || metadata.Version != FileVersion {
		t.Errorf("header of %d bytes, metadata %+v, error %v", n, metadata, err)
	}
	at := 0
	for i, a := range p.Arrays() {
		var e struct {
			Offsets []int `json:"data_offsets"`
		}
		if err := json.Unmarshal(header[a.Name], &e); err != nil {
			t.Fatal(err)
		}
		if len(e.Offsets) != 2 || e.Offsets[0] != at || !bytes.Equal(data[8+n+e.Offsets[0]:8+n+e.Offsets[1]], bytesOf(t, state[i])) {
			t.Errorf("%s lies at %v, wanted it at %d with its own bytes", a.Name, e.Offsets, at)
		}
		at += len(bytesOf(t, state[i]))
	}
	if 8+n+at != len(data) {
		t.Errorf("%d bytes, wanted %d", len(data), 8+n+at)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v lie in the folder (error %v), wanted the file alone", entries, err)
	}
}

// noWidth is the least number of bits above 1 that no code has.
func noWidth() int {
	bits := 2
	for slices.Contains(Widths(), bits) {
		bits++
	}
	return bits
}

// A file that is not a whole cache of this version is refused in one line that says why.
func TestLoadRefuses(t *testing.T) {
	path, _, _ := smallFile(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the header has no %q", old)
		}
		header := strings.Replace(string(good[8:8+binary.LittleEndian.Uint64(good)]), old, new, 1)
		data := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
		return append(append(data, header...), good[8+binary.LittleEndian.Uint64(good):]...)
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)-5] ^= 1
	foreign := []byte(`{"__metadata__":{"format":"pt"}}`)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "got 0 bytes"},
		{"a few bytes", []byte("abc"), "got 3 bytes"},
		{"another format", []byte("GGUF\x03\x00\x00\x00 and so on"), "another format"},
		{"not JSON", append(binary.LittleEndian.AppendUint64(nil, 4), "{{{{"...), "not JSON"},
		{"another program's safetensors", append(binary.LittleEndian.AppendUint64(nil, uint64(len(foreign))), foreign...), `format "pt"`},
		{"no metadata", append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...), "another program"},
		{"a newer version", replaced(`"version":"`+FileVersion+`"`, `"version":"9"`), `want version ` + FileVersion + ` or ` + FileVersion3 + ` of the format, got "9"`},
		{"a newer version than its settings ask for", replaced(`"version":"`+FileVersion+`"`, `"version":"`+FileVersion3+`"`), `want version ` + FileVersion + ` of the format for this configuration, got ` + FileVersion3},
		{"cut off in the header", good[:100], "cut off"},
		{"cut off in the data", good[:len(good)-1], "cut off"},
		{"a tail", append(slices.Clone(good), 0), "bytes of data"},
		{"a flipped bit", flipped, "damaged"},
		{"an unknown setting", replaced(`\"Sinks\":1`, `\"Sinks\":1,\"Magic\":2`), `unknown field "Magic"`},
		{"an absurd size", replaced(`\"Capacity\":8`, `\"Capacity\":8000000000000000000`), "at most 2147483647"},
		{"sizes that overflow together", replaced(`\"Capacity\":8`, `\"Capacity\":2000000000`), "bytes of data"},
		{"absurd layers", replaced(`\"Layers\":1`, `\"Layers\":1000000000`), "layers"},
		{"bits that do not exist", replaced(`\"NBits\":3`, fmt.Sprintf(`\"NBits\":%d`, noWidth())), fmt.Sprintf("want %s, got %d", usererr.OneOf(Widths()), noWidth())},
		{"a dtype that no cache has", replaced(`\"DType\":\"F16\"`, `\"DType\":\"F64\"`), "want float32, float16 or bfloat16"},
		{"an array of another name", replaced(`"layer0.key.codes"`, `"layer0.key.coded"`), "want an array layer0.key.codes"},
		{"an array of another dtype", replaced(`"dtype":"F16"`, `"dtype":"F32"`), "array layer0.exact"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			p, state, err := Load(path)
			if err == nil || p != nil || state != nil {
				t.Fatalf("loaded %v and %d arrays, error %v", p, len(state), err)
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
				t.Errorf("got %q, wanted one line with the path and %q", err, c.want)
			}
		})
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("an absent file: %v", err)
	}
}

// A cache with scales of tokens is of a version of its own, which a program that does not know them
// refuses by its number. It comes back as it was, and not as another version.
func TestTokenScalesInFiles(t *testing.T) {
	path, p, state := smallFileOf(t, withTokenScales)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plan, loaded, err := Load(path)
	if err != nil || plan.Config() != p.Config() {
		t.Fatalf("loaded %+v, error %v", plan, err)
	}
	names := 0
	for i, a := range p.Arrays() {
		if !bytes.Equal(bytesOf(t, loaded[i]), bytesOf(t, state[i])) {
			t.Errorf("array %s came back with other bytes", a.Name)
		}
		if a.Name == "layer0.key.tokenScales" {
			names++
		}
	}
	if names != 1 || !bytes.Contains(good, []byte(`"version":"`+FileVersion3+`"`)) {
		t.Errorf("%d arrays of scales of tokens, header %.300q", names, good[8:])
	}
	for _, change := range [][2]string{
		{`"version":"` + FileVersion3, `"version":"` + FileVersion}, // the settings ask for the other
		{`\"TokenScales\":true`, `\"TokenScales\":null`},
		{`layer0.key.tokenScales`, `layer0.key.tokenscales`},
		{`"dtype":"U8","shape":[2,1,1,1,32]`, `"dtype":"I8","shape":[2,1,1,1,32]`},
	} {
		changed := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, good) {
			t.Errorf("the header has no %q: %.2000q", change[0], good[8:])
		}
		if _, _, err := ReadCache(bytes.NewReader(changed), int64(len(changed))); !errors.Is(err, ErrInput) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line of ErrInput", change[1], err)
		}
	}
}

// Save refuses what is not the plan's state, and a failed save leaves the old file.
func TestSaveRefuses(t *testing.T) {
	path, p, state := smallFile(t)
	if err := Save(path, p, state[1:]); err == nil || !strings.Contains(err.Error(), "arrays") {
		t.Errorf("too few arrays: %v", err)
	}
	wrong := append([]*tensors.Tensor{state[1]}, state[1:]...)
	if err := Save(path, p, wrong); err == nil || !strings.Contains(err.Error(), "array 0 (length)") {
		t.Errorf("a wrong array: %v", err)
	}
	for to, want := range map[string]string{
		filepath.Join(t.TempDir(), "no", "folder"): "there is no folder", filepath.Dir(path): "is a folder", "": "got none",
	} {
		if err := Save(to, p, state); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("saved to %q: %v, want %q", to, err, want)
		}
	}
	if _, _, err := Load(path); err != nil {
		t.Errorf("the old file does not load any more: %v", err)
	}
}

// The same state gives the same file, so that files can be compared.
func TestSaveIsDeterministic(t *testing.T) {
	path, p, state := smallFile(t)
	again := path + " again"
	if err := Save(again, p, state); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(path)
	b, _ := os.ReadFile(again)
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Errorf("%d and %d bytes differ", len(a), len(b))
	}
}

// resaved is a file like good with changed arrays of counters, and the digest made anew.
func resaved(t *testing.T, change func(name string, values []int32)) string {
	t.Helper()
	path, p, state := smallFile(t)
	for i, a := range p.Arrays() {
		if a.Shape.DType != dtypes.Int32 {
			continue
		}
		if err := state[i].MutableBytes(func(data []byte) {
			values := make([]int32, len(data)/4)
			for j := range values {
				values[j] = int32(binary.LittleEndian.Uint32(data[4*j:]))
			}
			change(a.Name, values)
			for j, v := range values {
				binary.LittleEndian.PutUint32(data[4*j:], uint32(v))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Save(path, p, state); err != nil {
		t.Fatal(err)
	}
	return path
}

// Counters and indices that no cache has are refused in one line, whatever the digest says: steps
// loop over what they say.
func TestLoadChecksCounters(t *testing.T) {
	if _, _, err := Load(resaved(t, func(string, []int32) {})); err != nil {
		t.Fatalf("the state was to be good before the change: %v", err)
	}
	for name, values := range map[string][]int32{
		"length":     {-1, 9, 1 << 20}, // the capacity is 8
		"start":      {-1, 9, 4},       // 4: token 2 in the window is then of no row
		"next":       {-1, 4},          // 3 tokens
		"used":       {-1, 1 << 20},
		"codeIndex":  {-9, 3, 8},
		"exactIndex": {-9, 3, 8},
	} {
		for _, v := range append(values, math.MinInt32, math.MinInt32+1, math.MaxInt32-1, math.MaxInt32) {
			for _, place := range []int{0, -1} {
				path := resaved(t, func(n string, values []int32) {
					if n == name {
						values[(len(values)+place)%len(values)] = v
					}
				})
				p, state, err := Load(path)
				if err == nil || p != nil || state != nil {
					t.Errorf("%s of %d: loaded, error %v", name, v, err)
					continue
				}
				if !errors.Is(err, ErrInput) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "not a state of this cache") {
					t.Errorf("%s of %d: %q, want one line of ErrInput", name, v, err)
				}
			}
		}
	}
}

// What a killed Save left behind goes with the next Save to the same path; what others write, and
// files of other names, stay.
func TestSaveRemovesLeftovers(t *testing.T) {
	path, p, state := smallFile(t)
	dir := filepath.Dir(path)
	leftover := func(name string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	left := []string{leftover(".small cache.123.saving"), leftover(".small cache.4.saving")}
	stays := []string{leftover(".small cache.123"), leftover(".small cache.x.saving"), leftover(".other.5.saving"), leftover(".small cache.2.6.saving"),
		leftover("small cache.7.saving"), leftover(".small cache..saving")}
	busy, err := CreateTemporary(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	if runtime.GOOS == "linux" {
		stays = append(stays, busy.Name())
	}
	if err := Save(path, p, state); err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
	for _, name := range stays {
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
	_ = busy.Close()
	if err := Save(path, p, state); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(busy.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of a writer that ended is still there (%v)", err)
	}
}

// Many goroutines save to one path: each succeeds, none takes another's temporary file away.
func TestSaveAtOnce(t *testing.T) {
	path, p, state := smallFile(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 25 {
				if err := Save(path, p, state); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if _, _, err := Load(path); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v lie in the folder (error %v), wanted the file alone", entries, err)
	}
}

// signed is a file with the digest of its data, where its header has a place for one: whoever
// changes a file can do that too.
func signed(data []byte) []byte {
	if len(data) < 8 {
		return data
	}
	n := binary.LittleEndian.Uint64(data)
	if n > uint64(len(data)-8) {
		return data
	}
	const field = `"sha256":"`
	header := data[8 : 8+n]
	at := bytes.Index(header, []byte(field)) + len(field)
	if at < len(field) || len(header)-at < 2*sha256.Size {
		return data
	}
	data = slices.Clone(data)
	digest := sha256.Sum256(data[8+n:])
	hex.Encode(data[8+at:], digest[:])
	return data
}

func TestSigned(t *testing.T) {
	path, _, _ := smallFile(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(signed(good), good) {
		t.Error("a good file has another digest when signed")
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)-5] ^= 1 // of the last array, which holds numbers
	if _, _, err := ReadCache(bytes.NewReader(signed(flipped)), int64(len(flipped))); err != nil {
		t.Errorf("a changed number, signed: %v", err)
	}
}

// FuzzLoad feeds the loader damaged files with a right digest: it returns an error, or a state of
// the plan's shapes whose saved form loads again.
func FuzzLoad(f *testing.F) {
	path, _, _ := smallFile(f)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	path, _, _ = smallFileOf(f, withTokenScales)
	tokens, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tokens)
	f.Add(bytes.ReplaceAll(tokens, []byte(`true`), []byte(`null`)))
	f.Add(bytes.ReplaceAll(tokens, []byte(`"`+FileVersion3+`"`), []byte(`"`+FileVersion+`"`)))
	for _, change := range [][2]string{{`"` + FileVersion + `"`, `"9"`}, {`8`, `-8`}, {`F16`, `F32`}, {`:1`, `:1e9`}, {`8`, `99999999999`}} {
		f.Add(bytes.ReplaceAll(good, []byte(change[0]), []byte(change[1])))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = signed(data)
		p, state, err := ReadCache(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		for i, s := range p.Shapes() {
			if !state[i].Shape().Equal(s) {
				t.Errorf("array %d is %s, wanted %s", i, state[i].Shape(), s)
			}
		}
		if err := CheckState(p, state); err != nil {
			t.Error(err)
		}
		if err := Save(filepath.Join(t.TempDir(), "again"), p, state); err != nil {
			t.Error(fmt.Errorf("what was loaded is not saved: %w", err))
		}
	})
}
