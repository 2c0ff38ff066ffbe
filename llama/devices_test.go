package llama

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/calibration"
	"github.com/kvqbook/kvqbook/llama/modelfile"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// shardedModel loads a tiny model onto n devices, once for all tests. XLA's CPU shows several.
func shardedModel(t testing.TB, name string, n int) *Model {
	t.Helper()
	backend, dir := testbackend.XLA(t), golden.Dir(t)
	if has := backend.NumDevices(); has < n {
		t.Skipf("%d devices wanted, XLA shows %d", n, has)
	}
	models.Lock()
	defer models.Unlock()
	key := fmt.Sprint(name, n)
	if m := models.loaded[key]; m != nil {
		return m
	}
	files, err := Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(backend, LoadOptions{DType: dtypes.Float32, Devices: n, Weights: PlainWeights})
	if err != nil {
		t.Fatal(err)
	}
	models.loaded[key] = m
	return m
}

// On several devices come the tokens of transformers, as on one.
func TestDevicesMatchTransformers(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	for _, c := range []struct {
		model string
		n     int
	}{{"tiny-llama2", 2}, {"tiny-llama2", 4}, {"tiny-llama2-gqa", 2}} {
		t.Run(fmt.Sprintf("%s/%d", c.model, c.n), func(t *testing.T) {
			info, _ := readTiny(t, c.model)
			g := mustGenerator(t, shardedModel(t, c.model, c.n), kvq.Config{})
			for _, input := range []string{"len16", "len13"} {
				in, want := info.Inputs[input], info.Variants[input+".full"].Generated
				r := mustGenerate(t, g, in.IDs, in.Mask, GenerateConfig{MaxNewTokens: 24, MinNewTokens: 24})
				if !slices.EqualFunc(r.Tokens, want, slices.Equal) {
					t.Errorf("%s: tokens %v, transformers gives %v", input, r.Tokens, want)
				}
			}
		})
	}
}

// shardedGenerator is a generator on several devices, one for all tests.
func shardedGenerator(t testing.TB, model string, n int, cache kvq.Config) *Generator {
	t.Helper()
	m := shardedModel(t, model, n)
	models.Lock()
	defer models.Unlock()
	key := fmt.Sprintf("%s %d %+v", model, n, cache)
	if models.generators[key] == nil {
		g, err := NewGenerator(m, cache)
		if err != nil {
			t.Fatal(err)
		}
		models.generators[key] = g
	}
	return models.generators[key]
}

// The tiny models that are sharded: two query heads read a key/value head of the first, of which
// there are two; the other has four of each.
const (
	shardedName  = "tiny-llama2-gqa"
	shardedWider = "tiny-llama2"
)

// With each cache several devices give what one gives, also while the cache grows, and each holds
// its part of it.
func TestDevicesShareEachCache(t *testing.T) {
	testlane.Slow(t, "compiles every cache for several devices")
	ids, mask := raggedBatch()
	balanced, err := kvq.Preset("balanced")
	if err != nil {
		t.Fatal(err)
	}
	balanced.QGroupSizeValue = 16 // the head dim of the model
	lower, err := kvq.PresetFor("lower", 16)
	if err != nil {
		t.Fatal(err)
	}
	lower.ResidualLength = 2 // so that a block is coded
	lower.LayerBits = "1=4/3"
	for _, c := range []struct {
		name     string
		model    string
		n        int64
		cache    kvq.Config
		capacity int // to begin with
	}{
		{"full", shardedName, 2, caches["full"], 128},
		{"quanto", shardedName, 2, caches["quanto"], 68},
		{"quanto on 4", shardedWider, 4, caches["quanto"], 128},
		{"balanced", shardedName, 2, balanced, 128},
		{"lower, bits by layer", shardedName, 2, lower, 128},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cache == lower {
				testlane.OnlyAll(t, "compiles for half a minute; its metric is cut over devices as codes are")
			}
			n := c.n
			one := mustGenerate(t, tinyGenerator(t, c.model, c.cache), ids, mask, greedy12())
			g := shardedGenerator(t, c.model, int(n), c.cache)
			r, err := g.newRun(tokenizer.Batch{IDs: ids, Mask: mask}, greedy12())
			if err != nil {
				t.Fatal(err)
			}
			if r.plan, err = g.plan(len(ids), c.capacity); err != nil {
				t.Fatal(err)
			}
			runAll(t, r)
			plan := r.cache.plan
			if capacity := plan.Shape().Capacity; c.capacity < 75 && capacity <= c.capacity {
				t.Errorf("the cache of %d slots did not grow", capacity)
			}
			two := r.result
			for row := range ids {
				if !slices.Equal(two.Row(row), one.Row(row)) {
					t.Errorf("row %d: tokens %v, on one device %v", row, two.Row(row), one.Row(row))
				}
				for step := range one.Logits {
					// A code may fall to its neighbour where a value lies on the edge between two.
					if d := worst(t, two.Logits[step][row], one.Logits[step][row]); d > 2e-3 {
						t.Errorf("row %d, step %d: logits differ by up to %g from those of one device, want at most 2e-3", row, step, d)
					}
				}
			}
			all, err := g.Plan(len(ids), plan.Shape().Capacity)
			if err != nil {
				t.Fatal(err)
			}
			want := all.Memory()
			part := kvq.Memory{Codes: want.Codes / n, Scales: want.Scales / n, Zeros: want.Zeros / n, Window: want.Window / n,
				Sinks: want.Sinks / n, Full: want.Full / n, Index: want.Index, Metric: want.Metric / n}
			if want := slices.Repeat([]kvq.Memory{part}, int(n)); !slices.Equal(two.DeviceCaches, want) {
				t.Errorf("the devices hold %+v, want %+v", two.DeviceCaches, want)
			}
			if two.Cache.Total() != n*part.Total() {
				t.Errorf("%d bytes in all, want %d", two.Cache.Total(), n*part.Total())
			}
		})
	}
}

// Sampled tokens on two devices are those of one. Package evaluate does the same for scores.
func TestDevicesSample(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	one := tinyGenerator(t, shardedName, kvq.Config{})
	ids, mask := raggedBatch()
	gc := GenerateConfig{MaxNewTokens: 12, EOS: []tokenizer.Token{}, DoSample: true, Temperature: 0.8, TopP: 0.9, TopK: 40, Seed: 3}
	drawn, wanted := mustGenerate(t, shardedGenerator(t, shardedName, 2, kvq.Config{}), ids, mask, gc), mustGenerate(t, one, ids, mask, gc)
	if !slices.EqualFunc(drawn.Tokens, wanted.Tokens, slices.Equal) {
		t.Errorf("drew %v, on one device %v", drawn.Tokens, wanted.Tokens)
	}
}

// Rows that come and go on two devices make what each makes alone on one.
func TestDevicesServe(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	one := tinyGenerator(t, shardedName, kvq.Config{})
	var visitors []*visitor
	for i, n := range []int{49, 60, 55} {
		gc := GenerateConfig{MaxNewTokens: 9 + 6*i, EOS: []tokenizer.Token{}}
		if i == 1 {
			gc.DoSample, gc.Temperature, gc.TopK, gc.Seed = true, 0.8, 20, 5
		}
		visitors = append(visitors, &visitor{prompt: someTokens(i, n), gc: gc})
	}
	b := mustBatch(t, shardedGenerator(t, shardedName, 2, kvq.Config{}), 2)
	serve(t, b, visitors)
	for i, v := range visitors {
		want := mustGenerate(t, one, [][]int32{v.prompt}, nil, v.gc)
		if !slices.Equal(v.got, want.Tokens[0]) || v.stop != want.Stop {
			t.Errorf("visitor %d: %v (%s), alone on one device %v (%s)", i, v.got, v.stop, want.Tokens[0], want.Stop)
		}
	}
	now, _, err := b.Memory()
	if plan := b.Plan(); err != nil || plan.Shape().KVHeads != 2 || plan.Memory().Total() >= now.Total() {
		t.Errorf("a cache of %d heads in %d bytes, %d as it is (%v); want 2 heads, and more bytes for indices on both devices", plan.Shape().KVHeads, plan.Memory().Total(), now.Total(), err)
	}
}

// What two devices measure of a model's queries is what one measures, and each gets its heads' part
// of it.
func TestDevicesCalibrate(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	shardedModel(t, shardedName, 2) // or skips
	path := filepath.Join(t.TempDir(), "queries")
	cache := kvq.Config{Backend: kvq.Blocks, NBits: 2, QGroupSize: 16, ResidualLength: 4, FeedbackKey: kvq.FeedbackCalibrated}
	var means [][]float32
	var metrics [][]byte
	for n := 1; n <= 2; n++ {
		m := mustLoad(t, filepath.Join(golden.Dir(t), shardedName), LoadOptions{DType: dtypes.Float32, Devices: n, Weights: PlainWeights, Calibration: path})
		defer m.Finalize()
		q, err := m.Calibrate(context.Background(), [][]tokenizer.Token{someTokens(1, 40), someTokens(2, 30)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if means = append(means, q.Means); n == 1 {
			if err := calibration.Write(path, q); err != nil {
				t.Fatal(err)
			}
		}
		g := mustGenerator(t, m, cache)
		defer g.Finalize()
		plan, err := g.plan(1, 128)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.sharedMetrics(context.Background(), plan, &Timing{}); err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, x := range g.metrics.made {
			layer, err := readAll[uint8](x)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, layer...)
		}
		metrics = append(metrics, all)
	}
	if d := worst(t, means[1], means[0]); d > 1e-4 {
		t.Errorf("means differ by up to %g, want at most 1e-4", d)
	}
	if !bytes.Equal(metrics[1], metrics[0]) {
		t.Error("the cache is told something else than on one device")
	}
}

// Every device has its part of the matrices, and all have the rest: nobody has the whole model.
func TestDevicesShareWeights(t *testing.T) {
	one, two := tinyModel(t, "tiny-llama2", dtypes.Float32), shardedModel(t, "tiny-llama2", 2)
	c := one.Config()
	copied := int64(4 * (2*c.VocabSize*c.HiddenSize + (2*c.Layers+1)*c.HiddenSize))
	if got, want := two.Bytes(), one.Bytes()+copied; got != want {
		t.Errorf("%d bytes on two devices, want %d: those of one, and embeddings, head and norms once more", got, want)
	}
	var each [2]int64
	for _, s := range two.weights {
		for i, part := range s.parts {
			each[i] += part.ByteSize()
			if device, err := part.Device(); err != nil || int(device) != i {
				t.Errorf("part %d lies on device %d (%v)", i, device, err)
			}
		}
	}
	if each[0] != each[1] {
		t.Errorf("the devices have %v bytes, want the same", each)
	}
	// The same from weights that are all on one device already.
	files, err := Open(filepath.Join(golden.Dir(t), "tiny-llama2"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := newModel(two.Backend(), files.Config(), dtypes.Float32, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Finalize()
	o, err := LoadOptions{DType: dtypes.Float32}.Choose(files, true)
	if err != nil {
		t.Fatal(err)
	}
	onOne := loader{files: files, backend: two.Backend(), options: o}
	if err := again.place(onOne.tensors(), func(modelfile.Weight) {}); err != nil {
		t.Fatal(err)
	}
	for i, s := range two.weights {
		for j, part := range s.parts {
			if !part.Equal(again.weights[i].parts[j]) {
				t.Errorf("weight %d, part %d: not the same from files and from one device", i, j)
			}
		}
	}
}

func TestCut(t *testing.T) {
	// [2, 4, 1] of two bytes each: 0..7 and 8..15; half of the second axis is two elements of each
	// row.
	all := make([]byte, 16)
	for i := range all {
		all[i] = byte(i)
	}
	shape := shapes.Make(dtypes.Float16, 2, 4, 1)
	var buffer []byte
	for _, c := range []struct {
		axis, i, n int
		want       []byte
	}{
		{0, 1, 2, []byte{8, 9, 10, 11, 12, 13, 14, 15}},
		{1, 0, 2, []byte{0, 1, 2, 3, 8, 9, 10, 11}},
		{1, 3, 4, []byte{6, 7, 14, 15}},
	} {
		var got []byte
		if got, buffer = cut(all, shape, c.axis, c.i, c.n, buffer); !slices.Equal(got, c.want) {
			t.Errorf("piece %d of %d along axis %d: %v, want %v", c.i, c.n, c.axis, got, c.want)
		}
	}
}

func TestDevicesThatCannotShare(t *testing.T) {
	backend := testbackend.XLA(t)
	config := fakeConfig()
	files, err := Open(fakeFolder(t, config, fakeTensors(t, config, dtypes.Float32, false)))
	if err != nil {
		t.Fatal(err)
	}
	many := backend.NumDevices() + 1
	wide := files.Config()
	wide.KVHeads, wide.Heads = 3*many, 6*many
	wide.IntermediateSize = 7 * many
	odd := wide
	odd.IntermediateSize = 21
	for _, c := range []struct {
		config Config
		n      int
		want   string
	}{
		{files.Config(), 2, "the model has 3 key/value heads, which 2 devices cannot share; want one of: 1"},
		{files.Config(), 0, "0 devices, want at least 1"},
		{wide, many, fmt.Sprintf("want %d devices, xla has %d", many, many-1)},
		{odd, 2 * many, fmt.Sprintf("the model has %d key/value heads, which %d devices cannot share; want one of: 1, 3", 3*many, 2*many)},
	} {
		_, err := newModel(backend, c.config, dtypes.Float32, c.n)
		if err == nil || err.Error() != c.want || !usererr.Is(err) {
			t.Errorf("%d devices: %v, want %q", c.n, err, c.want)
		}
	}
	parallel, err := compute.NewWithConfig("go")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newModel(parallel, files.Config(), dtypes.Float32, 1); err == nil || !strings.Contains(err.Error(), "open it as go:ops_sequential") {
		t.Errorf("the pure-Go backend in parallel: %v, want an error that says how to open it", err)
	}
	// No weight is read for it.
	if _, err := files.Load(backend, LoadOptions{DType: dtypes.Float32, Devices: 2}); err == nil || !strings.Contains(err.Error(), "cannot share") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := files.Load(backend, LoadOptions{DType: dtypes.Float32, Context: ctx}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
