package pick

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// randomLogits are logits of a vocabulary with some equal ones and some forbidden ones.
func randomLogits(rows, v int, seed uint64) [][]float32 {
	random := rand.New(rand.NewPCG(seed, 0))
	out := make([][]float32, rows)
	for i := range out {
		for range v {
			x := float32(random.NormFloat64() * 3)
			switch random.IntN(8) {
			case 0:
				x = float32(math.Round(float64(x))) // many equals
			case 1:
				x = float32(math.Inf(-1))
			}
			out[i] = append(out[i], x)
		}
	}
	return out
}

func TestLargestReachingEqualsSort(t *testing.T) {
	exec := graph.MustNewExec(testbackend.XLA(t), func(x, weights, share *graph.Node) *graph.Node {
		return largestReaching(order(x), weights, share, 32)
	})
	random := rand.New(rand.NewPCG(1, 2))
	x := randomLogits(3, 50, 3)
	weights := make([][]float32, 3)
	for i := range weights {
		for range 50 {
			// whole numbers: sums are exact
			weights[i] = append(weights[i], float32(random.IntN(8)))
		}
	}
	for _, share := range []float32{1, 0.999, 0.5, 0.25, 1e-6} {
		got := exec.MustExec1(x, weights, []float32{share, share, share}).Value().([][]uint32)
		for i := range x {
			if want := hostLargestReaching(x[i], weights[i], share); got[i][0] != want {
				t.Errorf("row %d, share %g: threshold %08x, want %08x", i, share, got[i][0], want)
			}
		}
	}
}

func hostOrder(x float32) uint32 {
	code := math.Float32bits(x)
	if code>>31 == 1 {
		return ^code
	}
	return code | 1<<31
}

func hostLargestReaching(x, weights []float32, share float32) uint32 {
	order := byScore(x)
	var whole, sum float32
	for _, w := range weights {
		whole += w
	}
	for _, i := range order { // from the largest down
		if sum += weights[i]; sum >= share*whole && weights[i] > 0 {
			return hostOrder(x[i])
		}
	}
	return 0
}

// byScore sorts token ids from the best score down; of equal ones the higher id comes first, as it
// does when transformers reads an ascending, stable sort from its end.
func byScore(x []float32) []int {
	ids := make([]int, len(x))
	for i := range ids {
		ids[i] = i
	}
	slices.SortFunc(ids, func(a, b int) int {
		return cmp.Or(cmp.Compare(x[b], x[a]), cmp.Compare(b, a))
	})
	return ids
}

// hostFilter is TopKLogitsWarper and TopPLogitsWarper of transformers 4.57 in float64: which tokens
// stay.
func hostFilter(x []float32, k int, p float64) []bool {
	keep := make([]bool, len(x))
	order := byScore(x)
	last := x[order[min(k, len(x))-1]]
	var whole float64
	weight := func(i int) float64 { return math.Exp(float64(x[i]) - float64(x[order[0]])) }
	for i := range x {
		if keep[i] = x[i] >= last && !math.IsInf(float64(x[i]), -1); keep[i] {
			whole += weight(i)
		}
	}
	var used float64
	for _, i := range order {
		if !keep[i] {
			continue
		}
		keep[i] = used < p*whole
		used += weight(i)
	}
	return keep
}

func TestFiltersEqualTransformers(t *testing.T) {
	exec := graph.MustNewExec(testbackend.XLA(t), func(x, k, p *graph.Node) *graph.Node {
		return topP(topK(x, k), p)
	})
	x := append(randomLogits(4, 300, 5), make([]float32, 300)) // the last row: all equal
	for _, c := range []struct {
		k int
		p float32
	}{{300, 0.9}, {1, 0.5}, {10, 0.9999}, {40, 0.7}, {300, 1e-6}, {300, 0.25}, {7, 1}} {
		got := exec.MustExec1(x, int32(c.k), c.p).Value().([][]float32)
		for row := range x {
			want := hostFilter(x[row], c.k, float64(c.p))
			for i, kept := range want {
				switch {
				case kept && got[row][i] != x[row][i]:
					t.Errorf("k %d, p %g, row %d: token %d became %g, want %g", c.k, c.p, row, i, got[row][i], x[row][i])
				case !kept && !math.IsInf(float64(got[row][i]), -1):
					t.Errorf("k %d, p %g, row %d: token %d stays, want it gone", c.k, c.p, row, i)
				}
			}
		}
	}
}

// Every draw is the token whose slice of the probability the random number falls into, computed in
// float64.
func TestDrawIsInverseOfTheDistribution(t *testing.T) {
	const rows = 2000
	x := randomLogits(1, 60, 7)[0]
	batch, shares := make([][]float32, rows), make([]float32, rows)
	for i := range rows {
		batch[i], shares[i] = x, float32(i+1)/rows
	}
	got := graph.MustExecOnce(testbackend.XLA(t), draw, batch, shares).Value().([]int32)
	var whole float64
	for _, s := range x {
		whole += math.Exp(float64(s))
	}
	for i, share := range shares {
		// tail is the probability of the ids from id on; the draw is the last id whose tail still
		// reaches the share.
		var tail float64
		id := len(x)
		for tail < float64(share)-1e-6 {
			id--
			tail += math.Exp(float64(x[id])) / whole
		}
		// at an edge, rounding may decide for the neighbour
		near := math.Abs(tail-float64(share)) < 2e-6
		if int(got[i]) != id && !near {
			t.Fatalf("share %g: token %d, want %d", share, got[i], id)
		}
		if math.IsInf(float64(x[got[i]]), -1) {
			t.Fatalf("share %g: drew token %d, whose probability is 0", share, got[i])
		}
	}
}

// The random numbers of the host, through the graph, give the distribution: chi-square with a fixed
// seed.
func TestSampledTokensFollowTheDistribution(t *testing.T) {
	const n, v = 4000, 8
	logits := []float32{0, 1, 2, -1, 0.5, -3, 1.5, float32(math.Inf(-1))}
	p := New(Settings{Sample: true, Temperature: 0.7, TopP: 1, Seed: 11}, 1, v)
	exec := graph.MustNewExec(testbackend.XLA(t), func(in []*graph.Node) *graph.Node {
		settings := p.Kind.Inputs(in[1:])
		settings.Shares = graph.Reshape(settings.Shares, 1, n) // as so many rows of one step
		return p.Kind.Pick(graph.BroadcastToDims(in[0], n, v), graph.Const(in[0].Graph(), int32(0)), settings)
	})
	tokens := exec.MustExec1(append([]any{[][]float32{logits}}, p.Inputs(0, n, n)...)...).Value().([]int32)
	var counts, expected [v]float64
	var whole float64
	for _, token := range tokens {
		counts[token]++
	}
	for i, x := range logits {
		expected[i] = math.Exp(float64(x) / 0.7)
		whole += expected[i]
	}
	var chi float64
	for i := range counts {
		if expected[i] *= n / whole; expected[i] == 0 {
			if counts[i] > 0 {
				t.Errorf("token %d was drawn, its probability is 0", i)
			}
			continue
		}
		chi += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i]
	}
	// Seven possible tokens: six degrees of freedom, 22.5 is the 99.9 % point. The seed is fixed,
	// so this passes always or never.
	if chi > 22.5 {
		t.Errorf("chi-square %g with 6 degrees of freedom, want at most 22.5; counts %v, expected %v", chi, counts, expected)
	}
}

func TestGreedyTakesTheFirstOfEquals(t *testing.T) {
	kind := New(Settings{EOS: []int32{1}}, 2, 4).Kind
	pick := graph.MustNewExec(testbackend.XLA(t), func(logits, eos, minNew, generated *graph.Node) *graph.Node {
		return kind.Pick(logits, graph.Const(logits.Graph(), int32(0)), Inputs{EOS: eos, MinNew: minNew, Generated: generated})
	})
	logits := [][]float32{{0, 5, 5, 5}, {7, 7, 0, 7}}
	// token 1 ends a row: forbidden before 3 new tokens
	for generated, want := range map[int32][]int32{2: {2, 0}, 3: {1, 0}} {
		got := pick.MustExec1(logits, []int32{1, -1, -1, -1}, []int32{3}, []int32{generated}).Value().([]int32)
		if !slices.Equal(got, want) {
			t.Errorf("after %d new tokens: %v, want %v", generated, got, want)
		}
	}
}
