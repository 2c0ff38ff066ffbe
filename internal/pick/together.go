package pick

import "github.com/gomlx/gomlx/core/tensors"

// Together is the Kind in which rows pick side by side, each with the settings of its own Picker of
// one row. They share their endings, and the window of the penalty; nil rows rest.
func Together(rows []*Picker) Kind {
	k := Kind{PerRow: true}
	for _, p := range rows {
		if p == nil {
			continue
		}
		one := p.Kind
		k.Endings = max(k.Endings, one.Endings)
		k.Sample, k.TopK, k.TopP, k.MinP = k.Sample || one.Sample, k.TopK || one.TopK, k.TopP || one.TopP, k.MinP || one.MinP
		if one.Penalty > 0 {
			k.Penalty, k.Window = one.Penalty, one.Window
		}
	}
	return k
}

// InputsTogether are the arguments for the next n picks of a Kind by Together: generated counts the
// new tokens of each row, and size is the number of picks that the graph has room for.
func InputsTogether(k Kind, rows []*Picker, generated []int, n, size int) []any {
	b := len(rows)
	eos, minNew, made := make([]int32, k.Endings), make([]int32, b), make([]int32, b)
	for i := range eos {
		eos[i] = -1
	}
	temperature, minP, penalty := make([]float32, b), make([]float32, b), make([]float32, b)
	topK, topP, shares := make([]int32, b), make([]float32, b), make([]float32, size*b)
	texts := make([][]int32, b)
	for row, p := range rows {
		topK[row], topP[row], penalty[row] = 1, 1, 1
		for i := range size {
			shares[i*b+row] = 1
		}
		if p == nil {
			continue
		}
		copy(eos, p.eos)
		minNew[row], made[row] = int32(p.settings.MinNew), int32(generated[row])
		if p.Kind.Sample {
			temperature[row], minP[row] = single(p.settings.Temperature), float32(p.settings.MinP)
			topP[row] = single(p.settings.TopP)
			for i := range n {
				shares[i*b+row] = p.share(0, generated[row]+i)
			}
			if topK[row] = int32(p.settings.TopK); !p.Kind.TopK {
				topK[row] = int32(p.vocabulary)
			}
		}
		if p.Kind.Penalty > 0 {
			penalty[row], texts[row] = single(p.settings.Penalty), p.texts[0]
		}
	}
	in := []any{eos, minNew, made}
	if k.Sample {
		in = append(in, temperature, topK, topP, tensors.FromFlatDataAndDimensions(shares, size, b))
	}
	if k.MinP {
		in = append(in, minP)
	}
	if k.Penalty > 0 {
		in = append(append(in, penalty), k.historyOf(texts)...)
	}
	return in
}
