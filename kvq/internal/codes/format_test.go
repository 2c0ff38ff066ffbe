package codes_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Letters of the shapes that tests use.
const (
	rows, heads, tokens, queries = 2, 3, 64, 2
	blocks                       = tokens / codes.BlockTokens
)

// formatsOf are formats of a width: keys and values, groups along channels and along tokens, with
// whole and with broken words.
func formatsOf(bits int) map[string]codes.Format {
	out := map[string]codes.Format{}
	for _, keys := range []bool{true, false} {
		spec := numbers.Spec{Quantizer: numbers.MinMax, Bits: bits, Scales: numbers.ScaleFloat32, Keys: keys}
		name := map[bool]string{true: "keys", false: "values"}[keys]
		out[name+" per token"] = codes.New(spec, 64, 32, false, false)
		out[name+" per token, small groups"] = codes.New(spec, 80, 8, false, false)
		out[name+" per channel"] = codes.New(spec, 64, 64, true, false)
		if keys {
			if bits == 3 { // scales of tokens know nothing of widths
				f := codes.New(spec, 64, 64, true, false)
				f.TokenScales = true
				out[name+" per channel and token"] = f
			}
			// rows of padding
			out[name+" per channel, 100 channels"] = codes.New(spec, 100, 32, true, false)
			out[name+" per token, a group of 9"] = codes.New(spec, 9, 9, false, false)
		}
		if spec.Quantizer = numbers.Symmetric; spec.Quantizer.Check(spec) == nil {
			out[name+" symmetric"] = codes.New(spec, 64, 16, false, false)
		}
	}
	return out
}

// unpackedFormats are those of codes that are numbers of their own.
func unpackedFormats() map[string]codes.Format {
	out := map[string]codes.Format{}
	for _, q := range numbers.Quantizers {
		if !q.Packed() {
			out["keys "+q.Name] = codes.New(numbers.Spec{Quantizer: q, Bits: 8, Scales: numbers.ScaleFloat16, Keys: true}, 64, 64, false, false)
			out["values "+q.Name] = codes.New(numbers.Spec{Quantizer: q, Bits: 8, Scales: numbers.Scale8}, 96, 64, false, false)
		}
	}
	return out
}

func random(seed uint64, dims ...int) *tensors.Tensor {
	size := 1
	for _, d := range dims {
		size *= d
	}
	r, x := rand.New(rand.NewPCG(seed, 1)), make([]float32, size)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(x, dims...)
}

// grouped brings x [B, K, T, D] into the groups of a format: the axis of the group comes with it.
func grouped(f codes.Format, x *Node) (*Node, int) {
	if f.PerChannel {
		return Reshape(x, rows, heads, tokens/f.Group, f.Group, f.HeadDim), 3
	}
	return Reshape(x, rows, heads, tokens, f.Groups(), f.HeadDim/f.Groups()), 4
}

// For every width: what is packed comes back as the numbers that it was made of, and sums over
// packed codes are the sums over what comes back. One graph holds all formats of a width.
func TestEveryWidth(t *testing.T) {
	t.Run("not packed", func(t *testing.T) { requireFormats(t, unpackedFormats()) })
	for _, bits := range codes.AllBits() {
		t.Run(fmt.Sprintf("%d bits", bits), func(t *testing.T) { requireFormats(t, formatsOf(bits)) })
	}
}

func requireFormats(t *testing.T, formats map[string]codes.Format) {
	t.Helper()
	names := slices.Sorted(maps.Keys(formats))
	var inputs []any
	for _, name := range names {
		dim := formats[name].HeadDim
		inputs = append(inputs, random(1, rows, heads, tokens, dim), random(2, rows, heads, queries, dim),
			random(3, blocks, rows, heads, queries, codes.BlockTokens))
	}
	out := MustNewExec(testbackend.XLA(t), func(in []*Node) (results []*Node) {
		for i, name := range names {
			results = append(results, roundTrip(t, formats[name], in[3*i], in[3*i+1], in[3*i+2])...)
		}
		return results
	}).MustExec(inputs...)
	for i, name := range names {
		requireNear(t, name+", decoded", 1e-6, out[4*i], out[4*i+1])
		requireNear(t, name+", sums", 2e-4, out[4*i+2], out[4*i+3])
	}
}

// roundTrip codes x [B, K, T, D], and returns what comes back, what should, sums over the codes and
// the sums over what comes back: of queries q [B, K, Q, D] with keys, of values by weights w
// [N, B, K, Q, 32].
func roundTrip(t *testing.T, f codes.Format, x, q, w *Node) []*Node {
	t.Helper()
	made := f.Encode(x, nil)
	decoded := f.Decode(made)
	requireShapes(t, f, made)
	sums := codes.NewSums(gx.Scalar(x.Graph(), dtypes.Int32, tokens))
	var got, ofDecoded *Node
	if f.Keys { // [N, B, K, Q, 32] -> [B, K, Q, T]
		got = Reshape(TransposeAllAxes(f.Scores(q, made, sums), 1, 2, 3, 0, 4), rows, heads, queries, tokens)
		ofDecoded = Dot(q, decoded).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1})
	} else {
		got = f.WeightedSum(w, made, sums)
		flat := Reshape(TransposeAllAxes(w, 1, 2, 3, 0, 4), rows, heads, queries, tokens)
		ofDecoded = Dot(flat, decoded).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1})
	}
	return []*Node{decoded, plainlyDecoded(f, x), got, ofDecoded}
}

// requireShapes compares the arrays that were made with those announced.
func requireShapes(t *testing.T, f codes.Format, made codes.Blocks) {
	t.Helper()
	announced := f.Arrays(rows, heads, tokens, dtypes.Float32)
	if len(made.Nodes()) != len(announced) {
		t.Fatalf("%d arrays, announced %d", len(made.Nodes()), len(announced))
	}
	for i, a := range announced {
		if !made.Nodes()[i].Shape().Equal(a.Shape) {
			t.Errorf("array %d (%s) is %s, announced as %s", i, a.Kind, made.Nodes()[i].Shape(), a.Shape)
		}
	}
}

// plainlyDecoded is x coded and decoded without being packed, in x's shape.
func plainlyDecoded(f codes.Format, x *Node) *Node {
	groups, axis := grouped(f, x)
	var token, valid, weights *Node
	if f.TokenScales {
		token, groups, valid = numbers.TokenScales(groups, nil)
		weights = numbers.TokenWeights(token)
	}
	plain, scales, zeros, _ := f.Spec.EncodeWidth(groups, axis, valid, weights)
	scale, zero := f.Spec.ScaleAndZero(scales, zeros)
	want := Mul(f.Spec.Numbers(plain), gx.BroadcastToDims(scale, groups.Shape().Dimensions...))
	if zero != nil {
		want = Add(want, gx.BroadcastToDims(zero, groups.Shape().Dimensions...))
	}
	if f.TokenScales {
		want = Mul(want, gx.BroadcastToDims(numbers.DecodeTokenScales(token), groups.Shape().Dimensions...))
	}
	return Reshape(want, x.Shape().Dimensions...)
}

// Words that hold codes of two groups are unpacked, those with padding too.
func TestSplitWords(t *testing.T) {
	split := map[string]codes.Format{}
	for _, c := range []struct{ bits, dim, group int }{{3, 40, 20}, {3, 100, 50}, {4, 18, 9}} {
		spec := numbers.Spec{Quantizer: numbers.MinMax, Bits: c.bits, Scales: numbers.ScaleFloat32, Keys: true}
		f := codes.New(spec, c.dim, c.group, false, false)
		if f.Words().Whole {
			t.Errorf("%+v: words hold codes of one group", c)
		}
		split[fmt.Sprintf("%d bits, groups of %d", c.bits, c.group)] = f
	}
	names := slices.Sorted(maps.Keys(split))
	out := MustNewExec(testbackend.XLA(t), func(g *Graph) (results []*Node) {
		for i, name := range names {
			f := split[name]
			x := Const(g, random(uint64(i), rows, heads, tokens, f.HeadDim))
			made, want := f.Encode(x, nil), plainlyDecoded(f, x)
			requireShapes(t, f, made)
			results = append(results, f.Decode(made), want)
		}
		return results
	}).MustExec()
	for i, name := range names {
		requireNear(t, name, 1e-6, out[2*i], out[2*i+1])
	}
}

func requireNear(t *testing.T, what string, tolerance float64, got, want *tensors.Tensor) {
	t.Helper()
	a, b := tensors.MustCopyFlatData[float32](got), tensors.MustCopyFlatData[float32](want)
	if len(a) != len(b) || len(a) == 0 {
		t.Fatalf("%s: %s, want %s", what, got.Shape(), want.Shape())
	}
	for i := range a {
		if d := math.Abs(float64(a[i] - b[i])); !(d <= tolerance) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, a[i], b[i])
		}
	}
}

// The planes of a width hold its bits once, in words that codes fill.
func TestPlanesHoldAllBits(t *testing.T) {
	for _, w := range codes.Widths {
		sum := 0
		for _, plane := range w.Planes {
			sum += plane
			if plane != 1 && plane != 2 && plane != 4 && plane != 8 {
				t.Errorf("%d bits: a plane of %d, want 1, 2, 4 or 8", w.Bits, plane)
			}
		}
		if sum != w.Bits || w.Bits < 1 || w.Bits > 8 {
			t.Errorf("%d bits: planes %v", w.Bits, w.Planes)
		}
	}
}

// Whatever the head dimension, codes fill whole words where one group has all of them: with less
// than 8 rows of padding, and few words to a part. With more groups nothing is padded that fills
// bytes.
func TestEveryHeadFillsWords(t *testing.T) {
	for dim := 1; dim <= 600; dim++ {
		for _, bits := range codes.AllBits() {
			for _, perChannel := range []bool{true, false} {
				l := codes.Layout{Keys: true, HeadDim: dim, Bits: bits, Packed: true, Group: dim, PerChannel: perChannel}
				w := l.Words()
				if !w.Whole || w.Padded() < dim || w.Padded() >= dim+8 {
					t.Errorf("%+v lies in %+v", l, w)
				}
				for _, p := range l.Planes() {
					if p.Count > 15 || p.Count*p.Fields != w.Rows {
						t.Errorf("%+v lies in %+v, a plane in %d words of %d", l, w, p.Count, p.Fields)
					}
				}
				l = codes.Layout{HeadDim: dim, Bits: bits, Packed: true, Group: dim, PerChannel: perChannel}
				if w := l.Words(); w != (codes.WordLayout{Bits: 32, Parts: 1, Rows: codes.BlockTokens, Whole: true}) {
					t.Errorf("values of %d lie in %+v", dim, w)
				}
			}
			for group := 1; group < dim; group++ {
				if dim%group != 0 {
					continue
				}
				l := codes.Layout{Keys: true, HeadDim: dim, Bits: bits, Packed: true, Group: group}
				if w := l.Words(); (dim*bits%8 == 0) != (w.Padded() == dim) {
					t.Errorf("%+v lies in %+v", l, w)
				}
			}
		}
	}
}
