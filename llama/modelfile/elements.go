package modelfile

import (
	"cmp"
	"slices"
)

// Elements is what the model's files store with one element type.
type Elements struct {
	Type    string // as the format names it: "Q4_1", "F16", "BF16"
	Tensors int
	Bytes   int64
}

// Elements lists the element types of the model's weights in its files, those with the most bytes
// first.
func (f *Files) Elements() []Elements {
	types := map[string]*Elements{}
	for _, w := range f.config.Weights() {
		s := f.stored(w)
		name := cmp.Or(s.format, s.dtype.String())
		if types[name] == nil {
			types[name] = &Elements{Type: name}
		}
		types[name].Tensors++
		types[name].Bytes += s.size
	}
	var list []Elements
	for _, e := range types {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b Elements) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Type, b.Type))
	})
	return list
}
