package kvq_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// oldFileConfig has what caches had before scales of tokens and feedback: other bits in a layer.
var oldFileConfig = Config{
	Backend: Blocks, NBitsKey: 3, NBitsValue: 2, LayerBits: "1=4/3",
	QGroupSizeKey: 32, QGroupSizeValue: 8, AxisKey: PerChannel, ResidualLength: 4, Sinks: 2,
	Scales: Scale8, RotateKeys: true, RotateValues: true,
}

// oldAnswers are what attention gave after a prompt of 45 tokens, and after so many more that the
// window was coded once more.
type oldAnswers struct{ Saved, Later []float32 }

const oldPrompt, oldMore = 45, 30

// oldStep feeds tokens from one on to all layers, one by one or as a prompt, and returns the last
// answers of all layers.
func oldStep(t *testing.T, plan *Plan, state []*tensors.Tensor, from, n int) (answers []float32, after []*tensors.Tensor) {
	t.Helper()
	s := plan.Shape()
	numbers := func(seed float64) *tensors.Tensor {
		var list []float32
		for row := range s.Batch {
			for i := from; i < from+n; i++ {
				for d := range s.HeadDim {
					list = append(list, float32(math.Sin(seed+float64(i*(d+3)+7*row)*0.7)+math.Cos(seed*float64(d))))
				}
			}
		}
		return tensors.FromFlatDataAndDimensions(list, s.Batch, 1, n, s.HeadDim)
	}
	exec, err := NewExec(testbackend.XLA(t), func(in []*Node) []*Node {
		g := in[0].Graph()
		var cache Cache
		if len(in) == 3 {
			cache = plan.Init(Const(g, make([]int32, s.Batch)))
		} else {
			cache = plan.From(in[3:])
		}
		var out []*Node
		for layer := range s.Layers {
			l := cache.Layer(layer)
			l.Append(in[0], in[1])
			last := l.Attend(in[2])
			last = Slice(last, AxisRange(), AxisRange(), AxisElem(-1))
			out = append(out, Reshape(ConvertDType(last, dtypes.Float32), -1))
		}
		cache.Advance()
		return append([]*Node{Concatenate(out, 0)}, cache.Nodes()...)
	})
	if err != nil {
		t.Fatal(err)
	}
	args := []any{numbers(1), numbers(2), numbers(3)}
	for _, x := range state {
		args = append(args, x)
	}
	out, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	answers, err = tensors.CopyFlatData[float32](out[0])
	if err != nil {
		t.Fatal(err)
	}
	return answers, out[1:]
}

// A cache that was saved in version 2 loads, with its settings, and answers and goes on as it did
// then. Version 2 is what files had before scales of tokens and feedback.
// scripts/make-cache-goldens writes the file with the code of that time and this test, which
// writes the cache where $KVQ_WRITE_CACHE says, and what attention gave to the same name and .json.
func TestOldFile(t *testing.T) {
	golden := filepath.Join("testdata", "cache-v2")
	write := os.Getenv("KVQ_WRITE_CACHE")
	plan, err := New(oldFileConfig, Shape{Layers: 2, Batch: 2, KVHeads: 1, HeadDim: 16, Capacity: 96, DType: dtypes.Float16})
	if err != nil {
		t.Fatal(err)
	}
	var state []*tensors.Tensor
	var want oldAnswers
	if write != "" {
		_, state = oldStep(t, plan, nil, 0, oldPrompt)
		if err := Save(write, plan, state); err != nil {
			t.Fatal(err)
		}
	} else {
		loaded, tensors, err := Load(golden)
		if err != nil {
			t.Fatal(err)
		}
		if loaded.Config() != plan.Config() || !loaded.Shape().Equal(plan.Shape()) {
			t.Fatalf("loaded %+v for %+v, want %+v for %+v", loaded.Config(), loaded.Shape(), plan.Config(), plan.Shape())
		}
		plan, state = loaded, tensors
		text, err := os.ReadFile(golden + ".json")
		if err == nil {
			err = json.Unmarshal(text, &want)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var got oldAnswers
	got.Saved, state = oldStep(t, plan, state, oldPrompt, 1)
	for i := 1; i < oldMore; i++ {
		got.Later, state = oldStep(t, plan, state, oldPrompt+i, 1)
	}
	if write != "" {
		text, err := json.Marshal(got)
		if err == nil {
			err = os.WriteFile(write+".json", append(text, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, part := range []struct {
		name      string
		got, want []float32
	}{{"the token after loading", got.Saved, want.Saved}, {"after another block of codes", got.Later, want.Later}} {
		if len(part.got) != len(part.want) || len(part.want) == 0 {
			t.Fatalf("%s: %d numbers, want %d", part.name, len(part.got), len(part.want))
		}
		for i := range part.got {
			if math.Abs(float64(part.got[i]-part.want[i])) > 1e-4 {
				t.Errorf("%s: number %d is %g, want %g", part.name, i, part.got[i], part.want[i])
			}
		}
	}
}
