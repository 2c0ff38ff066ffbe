package kvq

import (
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Quantizer names how a group of values becomes codes. [Quantizers] lists all of them.
type Quantizer string

const (
	// MinMax covers every value of a group: scale·code + zero, from the least to the largest.
	MinMax Quantizer = "min-max"
	// LeastSquares shrinks the range to where the squared error is least. Better-looking values,
	// but worse answers: what is cut off is cut off on one side, and attention averages noise away,
	// not a bias (docs/quality.md).
	LeastSquares Quantizer = "least-squares"
	// Unbiased shrinks the range too, and then widens the scale so that the decoded group varies as
	// the original does.
	Unbiased Quantizer = "unbiased"
	// Symmetric codes have a scale and no zero point: the middle code is 0.
	Symmetric Quantizer = "symmetric"
	// Int8 stores signed bytes, one scale per token and head. Bits and group size are not used.
	Int8 Quantizer = "int8"
	// Float8 stores e4m3 numbers, one scale per token and head. Bits and group size are not used.
	Float8 Quantizer = "float8"
	// HalfQuadratic searches the zero point by half-quadratic splitting, as backend hqq does.
	HalfQuadratic Quantizer = "hqq"
)

// Quantizers lists all quantizers.
func Quantizers() []Quantizer {
	var list []Quantizer
	for _, q := range numbers.Quantizers {
		list = append(list, Quantizer(q.Name))
	}
	return list
}

// HasZeros tells whether codes decode to scale·code + zero, with a zero point for each group;
// others decode to scale·code.
func (q Quantizer) HasZeros() bool {
	found := numbers.ByName(string(q))
	return found != nil && found.Zeros
}

// Widths lists how many bits a code may have.
func Widths() []int { return codes.AllBits() }
