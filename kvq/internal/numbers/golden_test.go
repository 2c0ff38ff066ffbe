package numbers_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// variant is one way in which a golden case was quantized.
type variant struct {
	Key, Backend, DType, Error string
	NBits, Axis, Group         int
}

func (v variant) dtype() dtypes.DType {
	return map[string]dtypes.DType{"f32": dtypes.Float32, "bf16": dtypes.BFloat16, "f16": dtypes.Float16}[v.DType]
}

// grouped lays x out as the backend did before it looked for ranges: a matrix, and the axis along
// which groups run. quanto axis 0: [N/g, g], groups are rows. quanto axis -1 of [.., C]: [g,
// C·N/C/g], column c·(N/C/g)+j holds channel c of rows j·g .. j·g+g-1. hqq axis 1: [N/g, g], groups
// are rows; axis 0: [g, N/g], groups are columns.
func (v variant) grouped(x golden.Array) (matrix golden.Array, axis int) {
	n, g := len(x.Floats), v.Group
	switch {
	case v.Backend == "quanto" && v.Axis == 0, v.Backend == "hqq" && v.Axis == 1:
		return golden.Array{Shape: []int{n / g, g}, Floats: x.Floats}, 1
	case v.Backend == "hqq":
		return golden.Array{Shape: []int{g, n / g}, Floats: x.Floats}, 0
	}
	channels := x.Shape[len(x.Shape)-1]
	blocks := n / channels / g
	out := golden.Array{Shape: []int{g, channels * blocks}, Floats: make([]float32, n)}
	for i := range x.Floats {
		row, c := i/channels, i%channels
		out.Floats[row%g*channels*blocks+c*blocks+row/g] = x.Floats[i]
	}
	return out, 0
}

// quantCase is one input and the ways in which it was quantized.
type quantCase struct {
	dir      string
	File     string
	Variants []variant
}

// quantCases returns all golden cases by name.
func quantCases(t *testing.T) map[string]quantCase {
	all := map[string]quantCase{}
	for _, dir := range golden.Dirs(t) {
		var index struct{ Cases map[string]quantCase }
		golden.JSON(t, &index, dir, "quant", "index.json")
		for name, c := range index.Cases {
			c.dir = dir
			all[name] = c
		}
	}
	return all
}

func (c quantCase) read(t *testing.T) map[string]golden.Array {
	return golden.Npz(t, c.dir, "quant", c.File)
}

// runVariants runs one graph for many inputs at once: the graph function gets each input with its
// variant and returns what the test wants to see, which comes back as float32.
func runVariants(t *testing.T, inputs []golden.Array, variants []variant, build func(x *Node, v variant) []*Node) [][][]float32 {
	t.Helper()
	args := make([]any, len(inputs))
	for i, x := range inputs {
		args[i] = x.Tensor(variants[i].dtype())
	}
	per := 0
	out, err := MustNewExec(testbackend.XLA(t), func(xs []*Node) []*Node {
		var all []*Node
		for i, x := range xs {
			made := build(x, variants[i])
			per = len(made)
			for _, n := range made {
				all = append(all, ConvertDType(n, dtypes.Float32))
			}
		}
		return all
	}).Exec(args...)
	if err != nil {
		t.Fatal(err)
	}
	results := make([][][]float32, len(inputs))
	for i := range results {
		for _, tensor := range out[i*per : i*per+per] {
			results[i] = append(results[i], tensors.MustCopyFlatData[float32](tensor))
		}
	}
	return results
}

// Codes, scales, zero points and dequantized values of optimum-quanto, bit for bit, in float32,
// bfloat16 and float16, along both axes.
//
// Two kinds of goldens are not followed: a tensor that is one single group along axis 0, which
// quanto stores unquantized by a quirk, and ranges that overflow, where quanto gives NaN. Denormal
// numbers are in TestDenormals.
func TestQuantoGoldens(t *testing.T) {
	for name, c := range quantCases(t) {
		if strings.HasPrefix(name, "denormal") || strings.HasPrefix(name, "single_group") || strings.HasPrefix(name, "range_overflow") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(name, "headdim16") && !strings.HasPrefix(name, "single_token") {
				testlane.Slow(t, "two tensors are enough for a quick look")
			}
			t.Parallel()
			want := c.read(t)
			var inputs []golden.Array
			var variants []variant
			for _, v := range c.Variants {
				// In bfloat16 and float16, groups of 32 are enough: each graph takes its time to
				// compile.
				if v.Backend == "quanto" && v.Error == "" && (v.Group == 32 || v.DType == "f32") {
					x, _ := v.grouped(want["x"])
					inputs, variants = append(inputs, x), append(variants, v)
				}
			}
			t.Logf("%d variants", len(variants))
			results := runVariants(t, inputs, variants, func(x *Node, v variant) []*Node {
				_, axis := v.grouped(want["x"])
				codes, scale, zero := quantizeMinMax(x, axis, v.NBits, nil)
				return []*Node{codes, scale, Neg(zero), dequantize(codes, scale, zero)}
			})
			for i, v := range variants {
				dequantized, _ := v.grouped(want[v.Key+".dequant"])
				scale := want[v.Key+".scale"].Floats
				requireSame(t, v.Key+".scale", scale, results[i][1])
				requireSame(t, v.Key+".shift", want[v.Key+".shift"].Floats, results[i][2])
				codes := want[v.Key+".codes"].Floats
				for j := range codes {
					// 0/0 makes quanto's code in a constant group; its value is not used, as the
					// scale is 0.
					if scale[v.groupOf(j, inputs[i].Shape)] == 0 {
						codes[j] = 0
					}
				}
				requireSame(t, v.Key+".codes", codes, results[i][0])
				requireSame(t, v.Key+".dequant", dequantized.Floats, results[i][3])
			}
		})
	}
}

// groupOf returns the group of element i of the grouped matrix.
func (v variant) groupOf(i int, shape []int) int {
	if _, axis := v.grouped(golden.Array{Shape: shape}); axis == 1 {
		return i / shape[1]
	}
	return i % shape[1]
}

// requireSame compares values: 0 equals -0.
func requireSame(t *testing.T, name string, want, got []float32) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d values, wanted %d", name, len(got), len(want))
	}
	bad, first := 0, ""
	for i := range want {
		if want[i] != got[i] {
			if bad++; first == "" {
				first = fmt.Sprintf("first at %d: %v, wanted %v", i, got[i], want[i])
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d values differ, %s", name, bad, len(want), first)
	}
}

// The oracle's plain-Go emulation is held to the same goldens, so that it can stand in for them
// where there are none.
func TestOracleQuantoGoldens(t *testing.T) {
	rounders := map[string]oracle.Rounder{"f32": oracle.Exact, "bf16": oracle.BFloat16, "f16": oracle.Float16}
	for name, c := range quantCases(t) {
		if strings.HasPrefix(name, "single_group") || strings.HasPrefix(name, "range_overflow") {
			continue
		}
		want := c.read(t)
		for _, v := range c.Variants {
			if v.Backend != "quanto" || v.Error != "" {
				continue
			}
			x, axis := v.grouped(want["x"])
			dequantized, _ := v.grouped(want[v.Key+".dequant"])
			round := rounders[v.DType]
			got := make([]float32, len(x.Floats))
			for _, members := range groupsOf(x.Shape, axis) {
				group := make([]float32, len(members))
				for k, i := range members {
					group[k] = round(x.Floats[i])
				}
				codes, scale, zero := oracle.MinMax(group, v.NBits, round)
				for k, value := range oracle.DequantizeMinMax(codes, scale, zero, round) {
					got[members[k]] = value
				}
			}
			requireSame(t, name+" "+v.Key+".dequant", dequantized.Floats, got)
		}
	}
}

// groupsOf lists the elements of each group of a matrix.
func groupsOf(shape []int, axis int) [][]int {
	groups := make([][]int, shape[1-axis])
	for i := range shape[0] * shape[1] {
		at := i / shape[1]
		if axis == 0 {
			at = i % shape[1]
		}
		groups[at] = append(groups[at], i)
	}
	return groups
}

// hqq's codes, inverse scales, zero points and dequantized values, axis 1 and axis 0.
//
// Scales and codes are equal. Zero points are not bit for bit: they come from means and powers that
// torch computes in another order, and the search multiplies small errors by |e|^-0.3, without
// limit near e = 0. In 99 of 100 groups they agree to 5e-7 of their size or of the code range
// (float32 holds a number to 6e-8), in all to 1e-4. A code could differ where an element lies on
// the border of two; none of these does.
func TestHQQGoldens(t *testing.T) {
	cases := quantCases(t)
	for _, name := range []string{"normal_1x2x16x64", "constants_1x2x32x32", "outlier_channels_2x3x32x64", "all_positive_1x2x32x32", "headdim80_1x2x8x80",
		"single_token_2x3x1x64"} {
		c, ok := cases[name]
		if !ok {
			continue // only in the full set
		}
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(name, "single_token") {
				testlane.Slow(t, "one tensor is enough for a quick look")
			}
			t.Parallel()
			want := c.read(t)
			var inputs []golden.Array
			var variants []variant
			for _, v := range c.Variants {
				// Both axes are the same algorithm on a transposed matrix: one case for the other
				// axis is enough.
				if v.Backend == "hqq" && v.Error == "" && (v.Axis == 1 || name == "normal_1x2x16x64") {
					x, _ := v.grouped(want["x"])
					inputs, variants = append(inputs, x), append(variants, v)
				}
			}
			results := runVariants(t, inputs, variants, func(x *Node, v variant) []*Node {
				_, axis := v.grouped(want["x"])
				codes, factor, z := numbers.SolveHQQ(x, axis, v.NBits, nil, nil)
				return []*Node{codes, factor, z}
			})
			for i, v := range variants {
				dequantized, _ := v.grouped(want[v.Key+".dequant"])
				factor, z := want[v.Key+".scale"].Floats, want[v.Key+".zero"].Floats
				codes, gotZ := results[i][0], results[i][2]
				requireSame(t, v.Key+".scale", factor, results[i][1])
				loose := 0
				for j := range z {
					d := math.Abs(float64(z[j]-gotZ[j])) / max(math.Abs(float64(z[j])), float64(int(1)<<v.NBits))
					if d > 5e-7 {
						loose++
					}
					if d > 1e-4 || loose > 1+len(z)/100 {
						t.Errorf("%s: zero point %d is %v, wanted %v", v.Key, j, gotZ[j], z[j])
					}
				}
				// With hqq's own zero points, its values come out bit for bit: the codes are the
				// same. Where x lies on the border of two codes, the last place of the zero point
				// decides, which differs from processor to processor: one value in a thousand may
				// be a step away.
				values, border := make([]float32, len(codes)), 0
				for j := range codes {
					group := v.groupOf(j, inputs[i].Shape)
					values[j] = float32(codes[j]-z[group]) * factor[group]
					if want := dequantized.Floats[j]; values[j] != want && math.Abs(float64(values[j]-want)) < 1.01*float64(factor[group]) && border <= len(codes)/1000 {
						values[j], border = want, border+1
					}
				}
				requireSame(t, v.Key+".dequant", dequantized.Floats, values)
			}
		})
	}
}
