package kvq

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// stepInputs are the inputs of a step.
type stepInputs struct {
	tensors []*tensors.Tensor
	own     []*tensors.Tensor // made here
	shapes  []shapes.Shape
	tokens  int // t
}

// checkStart refuses padding that prompts of so many rows and tokens cannot have.
func checkStart(method string, start []int32, rows, tokens int) error {
	if len(start) != rows {
		return usererr.New("%s: padding of %d rows, want that of %d", method, len(start), rows)
	}
	for row, n := range start {
		if n < 0 || int(n) > tokens {
			return usererr.New("%s: padding of %d tokens in row %d, want 0 to the %d of the prompt", method, n, row, tokens)
		}
	}
	return nil
}

// newStepInputs checks the inputs of a step of b rows as far as they can be known: the first is
// [B, t, ...].
func newStepInputs(method string, b int, inputs []any) (*stepInputs, error) {
	in := &stepInputs{}
	for i, x := range inputs {
		if x == nil {
			in.free()
			return nil, usererr.New("%s: input %d: want a value or a tensor, got nil", method, i)
		}
		t, err := tensors.FromAnyValue(x)
		if err != nil {
			in.free()
			return nil, usererr.New("%s: input %d: %w", method, i, err)
		}
		if _, given := x.(*tensors.Tensor); !given {
			in.own = append(in.own, t)
		}
		in.tensors, in.shapes = append(in.tensors, t), append(in.shapes, t.Shape())
	}
	if len(in.shapes) == 0 || in.shapes[0].Rank() < 2 || in.shapes[0].Dim(0) != b || in.shapes[0].Dim(1) < 1 {
		first := "none"
		if len(in.shapes) > 0 {
			first = in.shapes[0].String()
		}
		in.free()
		return nil, usererr.New("%s: first input %s, want [%d, t, ...] for the new tokens of %d rows", method, first, b, b)
	}
	in.tokens = in.shapes[0].Dim(1)
	return in, nil
}

func (in *stepInputs) free() { finalize(in.own) }

func (in *stepInputs) args() []any { return anyOf(in.tensors) }
