package llama

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// loadAll reads all weights in the order of the table, onto a backend or into host memory where it
// is nil.
func loadAll(f *Files, backend compute.Backend, o LoadOptions) ([]loaded, error) {
	o, err := o.Choose(f, true)
	if err != nil {
		return nil, err
	}
	var all []loaded
	l := loader{files: f, backend: backend, options: o}
	for w, err := range l.tensors() {
		if err != nil {
			return all, err
		}
		all = append(all, w)
	}
	return all, nil
}

func finalize(list []loaded) {
	for _, w := range list {
		_ = w.tensor.FinalizeAll()
	}
}

// staged is a backend whose device has memory of its own, as a GPU has.
type staged struct{ compute.Backend }

func (staged) HasSharedBuffers() bool { return false }

// Tensors that travel to a device are those that are made in place; an error and the end of a
// context end the journey.
func TestLoadStaged(t *testing.T) {
	backend := testbackend.XLA(t)
	list := fakeTensors(t, fakeConfig(), dtypes.BFloat16, false)
	f, err := Open(fakeFolder(t, fakeConfig(), list))
	if err != nil {
		t.Fatal(err)
	}
	inPlace, err := loadAll(f, backend, LoadOptions{DType: dtypes.Float32})
	defer finalize(inPlace)
	if err != nil {
		t.Fatal(err)
	}
	uploaded, err := loadAll(f, staged{backend}, LoadOptions{DType: dtypes.Float32})
	defer finalize(uploaded)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range f.Config().Weights() {
		a, b := tensors.MustCopyFlatData[float32](inPlace[i].tensor), tensors.MustCopyFlatData[float32](uploaded[i].tensor)
		first := bfloat16.FromBits(binary.LittleEndian.Uint16(list[i].Data)).Float32()
		if inPlace[i].weight.HF != w.HF || uploaded[i].weight.HF != w.HF || !slices.Equal(a, b) || a[0] != first {
			t.Errorf("%s differs", w.HF)
		}
	}
	calls, last := 0, int64(-1)
	m, err := f.Load(backend, LoadOptions{DType: dtypes.Float32, Progress: func(done, total int64) { calls, last = calls+1, total-done }})
	if err != nil {
		t.Fatal(err)
	}
	m.Finalize()
	if calls != len(list) || last != 0 {
		t.Errorf("%d calls of progress with %d bytes left, want %d and 0", calls, last, len(list))
	}
	for stop := range len(list) {
		ctx, cancel := context.WithCancel(context.Background())
		o, err := LoadOptions{DType: dtypes.Float32, Context: ctx}.Choose(f, true)
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		l := loader{files: f, backend: staged{backend}, options: o}
		for w, failed := range l.tensors() {
			if err = failed; err != nil {
				break
			}
			_ = w.tensor.FinalizeAll()
			if calls++; calls == stop+1 {
				cancel()
			}
		}
		cancel()
		// One tensor more may have been on its way.
		if stop+2 < len(list) && (!errors.Is(err, context.Canceled) || calls > stop+2) {
			t.Errorf("cancelled after %d tensors: error %v after %d", stop+1, err, calls)
		}
	}
	path := filepath.Join(f.Path(), "model.safetensors")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-100); err != nil {
		t.Fatal(err)
	}
	rest, err := loadAll(f, staged{backend}, LoadOptions{DType: dtypes.Float32})
	finalize(rest)
	wantLine(t, err, "lm_head.weight", "ends early")
}

// The small model goes to a device.
func TestLoadSmallModelOnDevice(t *testing.T) {
	testlane.Slow(t, "loads the small model")
	path, backend := smallModel(t), testbackend.XLA(t)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := loadAll(f, backend, LoadOptions{DType: dtypes.Float32})
	defer finalize(all)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for i, w := range f.Config().Weights() {
		got := all[i].tensor
		if !slices.Equal(got.Shape().Dimensions, w.Dims) || got.DType() != dtypes.Float32 {
			t.Errorf("%s is %s, want float32 %v", w.HF, got.Shape(), w.Dims)
		}
		bytes += got.ByteSize()
	}
	if want := 4 * f.Config().ParameterCount(); bytes != want {
		t.Errorf("weights take %d bytes, want %d", bytes, want)
	}
}

// A context that ends, as by Ctrl-C, ends the loading between two tensors.
func TestLoadCancelled(t *testing.T) {
	f, err := Open(fakeFolder(t, fakeConfig(), fakeTensors(t, fakeConfig(), dtypes.Float32, false)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err = f.Load(testbackend.XLA(t), LoadOptions{DType: dtypes.Float32, Context: ctx, Progress: func(int64, int64) {
		if calls++; calls == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || calls != 3 {
		t.Errorf("after %d tensors: %v, want context.Canceled after 3", calls, err)
	}
}

// A generator that was made and prepared before the weights were read generates as one that was
// made afterwards, and compiles nothing a second time. An error before them ends the loading.
func TestLoadReady(t *testing.T) {
	f, err := Open(fakeFolder(t, fakeConfig(), fakeTensors(t, fakeConfig(), dtypes.Float32, false)))
	if err != nil {
		t.Fatal(err)
	}
	backend, batch, config := testbackend.XLA(t), tokenizer.Batch{IDs: [][]tokenizer.Token{{1, 2, 3}}}, GenerateConfig{MaxNewTokens: 4}
	var early *Generator
	var before int
	m, err := f.Load(backend, LoadOptions{DType: dtypes.Float32, Ready: func(m *Model) (err error) {
		if early, err = NewGenerator(m, kvq.Config{}); err == nil {
			err = early.Prepare(batch, config)
		}
		before = early.programs.all.Len()
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	defer early.Finalize()
	late, err := NewGenerator(m, kvq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Finalize()
	var got [2]*Result
	for i, g := range []*Generator{early, late} {
		if got[i], err = g.Generate(t.Context(), batch, config); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got[0].Tokens[0], got[1].Tokens[0]) || len(got[0].Tokens[0]) != 4 {
		t.Errorf("prepared before the weights: %v, after them: %v", got[0].Tokens, got[1].Tokens)
	}
	if n := early.programs.all.Len(); before == 0 || n != before {
		t.Errorf("%d graphs were prepared, %d compiled", before, n)
	}
	if err := early.Prepare(batch, GenerateConfig{MaxNewTokens: -1}); !errors.Is(err, ErrInput) {
		t.Errorf("Prepare for -1 tokens: %v", err)
	}
	no := errors.New("no")
	if _, err := f.Load(backend, LoadOptions{Ready: func(*Model) error { return no }}); !errors.Is(err, no) {
		t.Errorf("Load: %v, want the error of Ready", err)
	}
}

// BenchmarkLoadWeights loads three shards of Llama-2-7B's layout with two layers of its width (1.3
// GB as float16) and reports how fast that is relative to a plain read of the same files in the
// same run: their bytes into one block of memory that is made for it, as os.ReadFile has it. The
// files are in the page cache.
//
//	go test ./llama -run XXX -bench LoadWeights -benchtime 7x
func BenchmarkLoadWeights(b *testing.B) {
	shape, err := randomllama.Llama2(1)
	if err != nil {
		b.Fatal(err)
	}
	shape.Layers = 2
	dir := b.TempDir()
	if err := randomllama.Write(dir, shape, 3, 1); err != nil {
		b.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	shards, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		backend func() compute.Backend
		dtype   dtypes.DType
	}{
		{"float16 to host", func() compute.Backend { return nil }, dtypes.Float16},
		{"float16 to XLA", func() compute.Backend { return testbackend.XLA(b) }, dtypes.Float16},
		{"float32 to XLA", func() compute.Backend { return testbackend.XLA(b) }, dtypes.Float32},
	} {
		b.Run(c.name, func(b *testing.B) {
			backend := c.backend()
			b.SetBytes(f.StoredBytes())
			var ratios, loads []float64
			for b.Loop() {
				start := time.Now()
				readPlain(b, shards)
				plain := time.Since(start)
				start = time.Now()
				w, err := loadAll(f, backend, LoadOptions{DType: c.dtype})
				if err != nil {
					b.Fatal(err)
				}
				load := time.Since(start)
				ratios, loads = append(ratios, plain.Seconds()/load.Seconds()), append(loads, load.Seconds())
				finalize(w)
			}
			slices.Sort(ratios)
			slices.Sort(loads)
			b.ReportMetric(ratios[0], "of-plain-read-min")
			b.ReportMetric(ratios[len(ratios)/2], "of-plain-read-median")
			b.ReportMetric(loads[len(loads)/2], "load-s")
		})
	}
}

// readPlain reads files into memory as a whole, one after the other.
func readPlain(b *testing.B, paths []string) {
	b.Helper()
	var size int64
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
	}
	data := make([]byte, size)
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		info, err := file.Stat()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(file, data[:info.Size()]); err != nil {
			b.Fatal(err)
		}
		data = data[info.Size():]
		_ = file.Close()
	}
}

// BenchmarkLoadSmallModel loads the small model of the set-up, GGUF's Q4_1, as float32, and packs
// it.
func BenchmarkLoadSmallModel(b *testing.B) {
	backend, path := testbackend.XLA(b), smallModel(b)
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		m, err := f.Load(backend, LoadOptions{DType: dtypes.Float32, Weights: PlainWeights})
		if err != nil {
			b.Fatal(err)
		}
		m.Finalize()
	}
}
