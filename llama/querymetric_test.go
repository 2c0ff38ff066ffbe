package llama

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// bruteMetric is queryMetric without its algebra: the query of each channel of the input, at each
// position and for each query head, is rotated, and products are added up. w is
// [heads][D][hidden], bias and headNorm may be nil.
func bruteMetric(w [][][]float64, norm []float64, bias [][]float64, headNorm []float64, frequencies []float32, positions int) [][]float64 {
	dim, half := len(w[0]), len(w[0])/2
	sum := make([][]float64, dim)
	for i := range sum {
		sum[i] = make([]float64, dim)
	}
	for head := range w {
		// columns: what each channel of the input adds to the query, and the bias
		var columns [][]float64
		for i := range norm {
			column := make([]float64, dim)
			for d := range dim {
				column[d] = w[head][d][i] * norm[i]
			}
			columns = append(columns, column)
		}
		if bias != nil {
			columns = append(columns, append([]float64{}, bias[head]...))
		}
		if headNorm != nil {
			square := 0.0
			for _, c := range columns {
				for _, x := range c {
					square += x * x
				}
			}
			for _, c := range columns {
				for d := range c {
					c[d] *= headNorm[d] / math.Sqrt(square/float64(dim))
				}
			}
		}
		for p := range positions {
			for _, c := range columns {
				q := make([]float64, dim)
				for i, f := range frequencies {
					cos, sin := math.Cos(float64(p)*float64(f)), math.Sin(float64(p)*float64(f))
					q[i], q[i+half] = c[i]*cos-c[i+half]*sin, c[i+half]*cos+c[i]*sin
				}
				for i := range dim {
					for j := range dim {
						sum[i][j] += q[i] * q[j] / float64(positions*len(w))
					}
				}
			}
		}
	}
	return sum
}

// Two query heads of 4 channels read one key/value head, another two the other, from an input of 3:
// the metric is what adding up every position gives, with and without biases and norms of heads.
func TestQueryMetricOfWeights(t *testing.T) {
	const kv, group, dim, hidden, positions = 2, 2, 4, 3, 9
	random := rand.New(rand.NewPCG(3, 4))
	numbers := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(random.NormFloat64())
		}
		return out
	}
	frequencies := []float32{1, 0.3}
	qkv, norm := numbers(kv*(group+2)*dim*hidden), numbers(hidden)
	bias, headNorm := numbers(kv*(group+2)*dim), numbers(dim)
	config := Config{Heads: kv * group, KVHeads: kv, HeadDim: dim}
	out := MustNewExec(testbackend.XLA(t), func(in []*Node) []*Node {
		var w weightNodes
		w[modelfile.QKV].plain = Reshape(in[0], kv, group+2, dim, hidden)
		w[modelfile.AttnNorm].plain = in[1]
		plain := queryMetric(config, w, frequencies, positions)
		w[modelfile.QKVBias].plain, w[modelfile.QNorm].plain = Reshape(in[2], kv, group+2, dim), in[3]
		return []*Node{plain, queryMetric(config, w, frequencies, positions)}
	}).MustExec(qkv, norm, bias, headNorm)
	wide := func(x []float32) (out []float64) {
		for _, v := range x {
			out = append(out, float64(v))
		}
		return out
	}
	for head := range kv {
		var w [][][]float64
		var b [][]float64
		for query := range group {
			at := (head*(group+2) + query) * dim
			var rows [][]float64
			for d := range dim {
				rows = append(rows, wide(qkv[(at+d)*hidden:(at+d+1)*hidden]))
			}
			w, b = append(w, rows), append(b, wide(bias[at:at+dim]))
		}
		for i, want := range [][][]float64{
			bruteMetric(w, wide(norm), nil, nil, frequencies, positions),
			bruteMetric(w, wide(norm), b, wide(headNorm), frequencies, positions),
		} {
			got := tensors.MustCopyFlatData[float32](out[i])[head*dim*dim : (head+1)*dim*dim]
			for at, x := range got {
				if e := math.Abs(float64(x) - want[at/dim][at%dim]); e > 1e-5*(1+math.Abs(want[at/dim][at%dim])) {
					t.Errorf("case %d, head %d, element %d %d: %v, every position gives %v", i, head, at/dim, at%dim, x, want[at/dim][at%dim])
				}
			}
		}
	}
}

// Packed weights give what the same weights give as numbers.
func TestQueryMetricOfPackedWeights(t *testing.T) {
	const kv, group, dim, groups = 1, 2, 4, 2
	const outs, hidden = kv * (group + 2) * dim, groups * packedGroup
	random := rand.New(rand.NewPCG(5, 6))
	codes, scale, low := make([]uint32, groups*4*outs), make([]float32, groups*outs), make([]float32, groups*outs)
	for i := range codes {
		codes[i] = random.Uint32()
	}
	for i := range scale {
		scale[i], low[i] = random.Float32(), random.Float32()-0.5
	}
	config := Config{Heads: kv * group, KVHeads: kv, HeadDim: dim}
	out := MustNewExec(testbackend.XLA(t), func(codes, scale, low *Node) []*Node {
		packed := matrix{codes: Reshape(codes, groups, 4, outs), scale: Reshape(scale, groups, outs), min: Reshape(low, groups, outs), out: []int{kv, group + 2, dim}}
		plain := matrix{plain: Reshape(Transpose(packed.unpacked(), 0, 1), kv, group+2, dim, hidden)}
		var list []*Node
		for _, m := range []matrix{packed, plain} {
			var w weightNodes
			w[modelfile.QKV] = m
			w[modelfile.AttnNorm].plain = ConvertDType(Iota(codes.Graph(), shapes.Make(dtypes.Int32, hidden), 0), dtypes.Float32)
			list = append(list, queryMetric(config, w, []float32{1, 0.1}, 5))
		}
		return list
	}).MustExec(codes, scale, low)
	if !out[0].Equal(out[1]) {
		t.Errorf("packed %v, plain %v", out[0], out[1])
	}
}
