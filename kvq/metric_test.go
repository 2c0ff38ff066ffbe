package kvq_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// metricOf makes a metric whose factor a cache can keep exactly: L has sevenths of 7/8 below its
// diagonal, and damped = L·P·Lᵀ is the metric in units of its mean diagonal with damping on top.
func metricOf(random *rand.Rand, dim int, damping float64) (metric []float32, damped [][]float64) {
	l, p := make([][]float64, dim), make([]float64, dim)
	for i := range l {
		l[i] = make([]float64, dim)
		for j := range i {
			l[i][j] = float64(random.IntN(15)-7) / 8
		}
		l[i][i], p[i] = 1, 0.5+random.Float64()
	}
	for j := range dim - 1 {
		l[dim-1][j] = 7.0 / 8 // each column has its largest
	}
	trace := 0.0
	for i := range dim {
		damped = append(damped, make([]float64, dim))
		for j := range dim {
			for k := range dim {
				damped[i][j] += l[i][k] * p[k] * l[j][k]
			}
		}
		trace += damped[i][i]
	}
	scale := (1 + damping) * float64(dim) / trace
	for i := range dim {
		for j := range dim {
			damped[i][j] *= scale
			m := damped[i][j]
			if i == j {
				m -= damping
			}
			metric = append(metric, float32(5*m)) // in units of its own
		}
	}
	return metric, damped
}

// Keys are coded by the metric that WeighKeys hands over, those of the prompt and those that a
// flush codes later: codes are the oracle's, for either form of it. All rows share it, as a part of
// the model and not of a row.
func TestWeighKeys(t *testing.T) {
	t.Run("of a prompt", func(t *testing.T) {
		testlane.Slow(t, "compiles a prompt")
		checkWeighKeys(t, 0, 64)
	})
	t.Run("of a prompt and a chunk after it", func(t *testing.T) {
		testlane.OnlyAll(t, "what a flush does with a metric, TestFeedback shows")
		checkWeighKeys(t, 40, 96)
	})
}

// checkWeighKeys is TestWeighKeys with so many tokens after the prompt, after which a row has so
// many in codes.
func checkWeighKeys(t *testing.T, chunk, coded int) {
	const bits, dim, heads, prompt, damping = 2, 10, 2, 76, 0.1
	config := blocks(bits, func(c *Config) { c.FeedbackKey, c.QGroupSize, c.Scales = FeedbackCalibrated, dim, ScaleFloat32 })
	plan := newPlan(t, config, Shape{Layers: 1, Batch: 2, KVHeads: heads, HeadDim: dim, Capacity: 128, DType: dtypes.Float32})
	random := rand.New(rand.NewPCG(1, 2))
	var metrics []float32
	damped := make([][][]float64, heads)
	for head := range damped {
		var metric []float32
		metric, damped[head] = metricOf(random, dim, damping)
		metrics = append(metrics, metric...)
	}
	keys := make([]float32, 2*heads*(prompt+chunk)*dim)
	for i := range keys {
		keys[i] = float32(random.NormFloat64())
	}

	out := MustNewExec(testbackend.XLA(t), func(x, metrics *Node) []*Node {
		x, metrics = Reshape(x, 2, heads, prompt+chunk, dim), Reshape(metrics, heads, dim, dim)
		packed := Reshape(plan.PackMetrics(Reshape(metrics, 1, heads, dim, dim)), plan.KeyMetric().Dimensions...)
		step := func(cache Cache, x, metric *Node) {
			layer := cache.Layer(0)
			layer.Append(x, x)
			layer.WeighKeys(func() *Node { return metric })
			layer.Attend(x)
			cache.Advance()
		}
		cache := plan.Init(gx.Zeros(x.Graph(), plan.Shapes()[1]))
		step(cache, Slice(x, AxisRange(), AxisRange(), AxisRange(0, prompt)), metrics)
		if chunk > 0 {
			step(cache, Slice(x, AxisRange(), AxisRange(), AxisRange(prompt)), packed)
		}
		return append(cache.Nodes(), packed)
	}).MustExec(keys, metrics)
	state, packed := out[:len(out)-1], out[len(out)-1]
	if last := len(state) - 1; plan.Arrays()[last].Name != "layer0.key.metric" || !state[last].Equal(packed) {
		t.Errorf("%s of a matrix is another than of PackMetrics", plan.Arrays()[last].Name)
	}

	held, compared := readState(t, plan, state), 0
	for row := range 2 {
		for i, token := range held.tokens(t, 0, row) {
			for head := range heads {
				at := ((row*heads+head)*(prompt+chunk) + i) * dim
				x := keys[at : at+dim]
				if token.place != inCodes {
					continue
				}
				_, scale, zero := oracle.MinMax(x, bits, oracle.Exact)
				each := func(v float32) (list []float64) {
					for range dim {
						list = append(list, float64(v))
					}
					return list
				}
				want, near := oracle.Feedback(wide(x), each(scale), each(zero), damped[head], bits)
				if near < 1e-3 { // rounding of sums decides
					continue
				}
				compared++
				for d, code := range want {
					if value := float64(scale)*float64(code) + float64(zero); token.keys[head][d]-value > 1e-5 || value-token.keys[head][d] > 1e-5 {
						t.Fatalf("row %d, token %d, head %d, channel %d: %v, the oracle has %v", row, i, head, d, token.keys[head][d], value)
					}
				}
			}
		}
	}
	if compared < 2*heads*coded*9/10 {
		t.Errorf("%d tokens and heads could be compared, want most of %d in 2 rows and 2 heads", compared, coded)
	}
	if m, bytes := plan.Memory(), int64(heads*(3+1)*dim); m.Metric != 0 || m.SharedMetric != bytes {
		t.Errorf("metrics of rows take %d bytes and the shared one %d, want 0 and %d", m.Metric, m.SharedMetric, bytes)
	}
}

// What is not handed over, or has another shape, is said.
func TestWeighKeysRefuses(t *testing.T) {
	config, plain := fedBack()
	config.FeedbackKey, config.FeedbackValue = FeedbackWeights, NoFeedback
	shape := Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 16, Capacity: 64, DType: dtypes.Float32}
	plan := newPlan(t, config, shape)
	for _, c := range []struct {
		name, want string
		build      func(cache Cache, x *Node)
	}{
		{"no WeighKeys", "want WeighKeys between Append and Attend", func(cache Cache, x *Node) {
			cache.Layer(0).Append(x, x)
			cache.Layer(0).Attend(x)
		}},
		{"another shape", "want (Float32)[2, 16, 16]", func(cache Cache, x *Node) {
			cache.Layer(0).Append(x, x)
			cache.Layer(0).WeighKeys(func() *Node { return x })
		}},
		{"metrics of another shape", "want Float32 [n, 2, 16, 16]", func(_ Cache, x *Node) { plan.PackMetrics(x) }},
		{"a cache without", `want kvq.Config.FeedbackKey "queries+calibrated", "calibrated" or "weights", got ""`, func(_ Cache, x *Node) {
			newPlan(t, plain, shape).PackMetrics(gx.Zeros(x.Graph(), shapes.Make(dtypes.Float32, 3, 2, 16, 16)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := exceptions.TryCatch[error](func() {
				MustNewExec(testbackend.XLA(t), func(start *Node) []*Node {
					cache := plan.Init(start)
					c.build(cache, gx.Zeros(start.Graph(), shapes.Make(dtypes.Float32, 1, 2, 3, 16)))
					return cache.Nodes()
				}).MustExec([]int32{0})
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// Two query heads a key/value head, of two tokens, the first of which is padding; what is not
// finite has no vote.
func TestQueryMetric(t *testing.T) {
	nan := float32(0)
	nan /= nan
	out := MustNewExec(testbackend.XLA(t), func(q, token *Node) *Node { return QueryMetric(q, token, 1) }).
		MustExec([][][][]float32{{{{9, 9}, {1, 2}}, {{9, 9}, {3, nan}}}}, [][]bool{{false, true}})
	got, want := tensors.MustCopyFlatData[float32](out[0]), []float32{1 + 9, 2, 2, 4}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("element %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// factorOnHost is L without its diagonal of metric + damping on the diagonal = L·P·Lᵀ.
func factorOnHost(metric [][]float64, damping float64) [][]float64 {
	n := len(metric)
	l, p := make([][]float64, n), make([]float64, n)
	for i := range l {
		l[i] = make([]float64, n)
	}
	for j := range n {
		p[j] = metric[j][j] + damping
		for k := range j {
			p[j] -= l[j][k] * l[j][k] * p[k]
		}
		for i := j + 1; i < n; i++ {
			l[i][j] = metric[i][j]
			for k := range j {
				l[i][j] -= l[i][k] * l[j][k] * p[k]
			}
			l[i][j] /= p[j]
		}
	}
	return l
}

// A mixed metric is half the prompt's and half the one from outside, each in units of its mean
// diagonal: what is kept is the factor of that. A row without a prompt has the other half alone.
func TestMixedMetric(t *testing.T) {
	const dim, tokens, damping = 4, 3, 0.3
	config := blocks(2, func(c *Config) { c.FeedbackKey, c.QGroupSize = FeedbackMixed, dim })
	plan := newPlan(t, config, Shape{Layers: 1, Batch: 2, KVHeads: 1, HeadDim: dim, Capacity: 64, DType: dtypes.Float32})
	random := rand.New(rand.NewPCG(7, 8))
	queries, outside := make([]float32, 2*tokens*dim), make([]float32, dim*dim)
	for i := range queries {
		queries[i] = float32(3 * random.NormFloat64())
	}
	for range 5 {
		q := make([]float32, dim)
		for i := range q {
			q[i] = float32(random.NormFloat64())
		}
		for i := range dim {
			for j := range dim {
				outside[i*dim+j] += 100 * q[i] * q[j]
			}
		}
	}
	out := MustNewExec(testbackend.XLA(t), func(start, queries, outside *Node) *Node {
		x := Reshape(queries, 2, 1, tokens, dim)
		cache := plan.Init(start)
		layer := cache.Layer(0)
		layer.Append(x, x)
		layer.WeighKeys(func() *Node { return Reshape(outside, 1, dim, dim) })
		layer.Attend(x)
		cache.Advance()
		nodes := cache.Nodes()
		return numbers.UnpackFactor(nodes[len(nodes)-1])
	}).MustExec([]int32{0, tokens}, queries, outside)
	got := tensors.MustCopyFlatData[float32](out[0])

	units := func(metric []float64) []float64 {
		mean := 0.0
		for i := range dim {
			mean += metric[i*dim+i] / dim
		}
		for i := range metric {
			metric[i] /= mean
		}
		return metric
	}
	own := make([]float64, dim*dim)
	for token := range tokens {
		q := queries[token*dim : (token+1)*dim]
		for i := range dim {
			for j := range dim {
				own[i*dim+j] += float64(q[i]) * float64(q[j])
			}
		}
	}
	units(own)
	for row, share := range []float64{0.5, 0} {
		metric := make([][]float64, dim)
		for i, all := range units(wide(outside)) {
			metric[i/dim] = append(metric[i/dim], share*own[i]+(1-share)*all)
		}
		want := factorOnHost(metric, damping)
		for column := range dim {
			largest := 0.0
			for i := range dim {
				largest = max(largest, math.Abs(want[i][column]))
			}
			for i := range dim {
				x := float64(got[(row*dim+i)*dim+column])
				if math.Abs(x-want[i][column]) > largest/14*1.07+math.Abs(want[i][column])/16 { // 4 bits, and a byte for the largest
					t.Errorf("row %d, element %d %d of the factor is %v, want %v", row, i, column, x, want[i][column])
				}
			}
		}
	}
	if m := plan.Memory(); m.Metric != 2*(1+1)*dim || m.SharedMetric != 0 {
		t.Errorf("metrics of rows take %d bytes and shared ones %d, want %d and 0", m.Metric, m.SharedMetric, 2*(1+1)*dim)
	}
}

// The metric of rotated queries of 16 bits is that of queries, rotated, but for what 16 bits round.
func TestShortMetric(t *testing.T) {
	const heads, tokens, dim = 4, 20, 32
	rng := rand.New(rand.NewPCG(7, 8))
	queries := make([]float32, heads*tokens*dim)
	for i := range queries {
		queries[i] = float32(rng.NormFloat64())
	}
	queries[0] = float32(math.Inf(1)) // of a token that does not count
	token := make([]bool, tokens)
	for i := range token {
		token[i] = i > 2
	}
	out := MustNewExec(testbackend.XLA(t), func(q, token *Node) []*Node {
		metric := QueryMetric(q, token, 2)
		return []*Node{ShortMetric(numbers.Rotate(q), token, 2), numbers.Rotate(Transpose(numbers.Rotate(metric), -1, -2))}
	}).MustCall(tensors.FromFlatDataAndDimensions(float16.FromFloat32s(queries...), 1, heads, tokens, dim), tensors.FromFlatDataAndDimensions(token, 1, tokens))
	got, want := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
	if len(got) != 2*dim*dim {
		t.Fatalf("%d numbers", len(got))
	}
	for i, w := range want {
		if !(math.Abs(float64(got[i]-w)) <= 0.05) { // of sums of 34 products
			t.Errorf("%d: %v, want %v", i, got[i], w)
			break
		}
	}
}

// Turn changes the codes of keys that feedback makes, and nothing else that is kept of a prompt but
// its metric. Another number of frequencies is refused.
func TestTurn(t *testing.T) {
	const heads, dim, tokens = 2, 8, 64
	config := Config{Backend: Blocks, NBits: 2, QGroupSizeKey: 32, QGroupSizeValue: dim, AxisKey: PerChannel, RotateKeys: true,
		QuantizerKey: Unbiased, QuantizerValue: Unbiased, FeedbackKey: FeedbackQueries}
	plan, err := New(config, Shape{Layers: 1, Batch: 1, KVHeads: heads, HeadDim: dim, Capacity: tokens, DType: dtypes.Float32})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	x := make([]float32, heads*tokens*dim)
	for i := range x {
		x[i] = float32(rng.NormFloat64()) + float32(i%dim)
	}
	state := func(frequencies []float32) []*tensors.Tensor {
		return MustNewExec(testbackend.XLA(t), func(x *Node) []*Node {
			cache := plan.Init(gx.Zeros(x.Graph(), shapes.Make(dtypes.Int32, 1)))
			layer := cache.Layer(0)
			layer.Append(x, x)
			if frequencies != nil {
				layer.Turn(frequencies)
			}
			layer.Attend(x)
			cache.Advance()
			return cache.Nodes()
		}).MustCall(tensors.FromFlatDataAndDimensions(x, 1, heads, tokens, dim))
	}
	without, with := state(nil), state([]float32{1, 0.1, 0.01, 0.001})
	changed := 0
	for i := range without {
		if !without[i].Equal(with[i]) {
			changed++
		}
	}
	if changed != 2 {
		t.Errorf("%d arrays of the cache are others, want 2: the codes of keys, and the metric", changed)
	}
	for i, same := range state([]float32{0, 0, 0, 0}) {
		if !without[i].Equal(same) {
			t.Errorf("array %d is another one though nothing turns", i)
		}
	}
	if err := exceptions.TryCatch[error](func() { state([]float32{1, 2, 3}) }); err == nil || !strings.Contains(err.Error(), "3 frequencies, want 4") {
		t.Errorf("3 frequencies: %v, want a refusal", err)
	}
}
