package bench

import (
	"context"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
)

// Bandwidth measures the memory bandwidth of a device in bytes a second, reading and writing
// counted: the best of runs passes that add 1 to every element of an array of bytes bytes, which is
// far more than any cache of a processor holds.
func Bandwidth(ctx context.Context, backend compute.Backend, bytes, runs int) (float64, error) {
	const passes = 8
	n := bytes / 4
	exec, err := NewExec(backend, func(one *Node) *Node {
		g := one.Graph()
		end := gx.Loop([]*Node{gx.Scalar(g, dtypes.Int32, 0), gx.Fill(g, shapes.Make(dtypes.Float32, n), 1)},
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], passes) },
			func(st []*Node) []*Node { return []*Node{gx.AddScalar(st[0], 1), gx.AddScalar(st[1], 1)} })
		return Slice(end[1], AxisRange(n-1, n))
	})
	if err != nil {
		return 0, err
	}
	defer exec.Finalize()
	times, err := Alternate(ctx, runs, func(context.Context) (time.Duration, error) {
		start := time.Now()
		out, err := exec.Call(int32(1))
		if err != nil {
			return 0, err
		}
		defer func() { _ = out[0].FinalizeAll() }()
		_, err = tensors.CopyFlatData[float32](out[0])
		return time.Since(start), err
	})
	if err != nil {
		return 0, err
	}
	// One pass more: the array is filled first, which only writes.
	return float64(bytes) * (2*passes + 1) / times[0].Min().Seconds(), nil
}
