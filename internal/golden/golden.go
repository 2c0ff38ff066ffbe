// Package golden reads the reference values that were made with transformers, optimum-quanto and
// hqq, for tests only.
package golden

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/core/tensors/numpy"
	"github.com/kvqbook/kvqbook/internal/asset"
)

// Dir returns the folder of the full set of goldens, which lies beside the repository and not in
// it. Where there is none, the test is skipped with that reason; what must be tested from a clone
// alone has its goldens in a testdata folder.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := asset.Goldens()
	if err != nil {
		t.Skipf("no goldens: %v", err)
	}
	return dir
}

// Dirs returns the folders of goldens there are: the small part in this package's testdata, which
// every clone has, and the full set where it is found.
func Dirs(t testing.TB) []string {
	t.Helper()
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(root, "internal", "golden", "testdata")}
	if full, err := asset.Goldens(); err == nil {
		return append(dirs, full)
	}
	return dirs
}

// Array is one array of a golden file: its dimensions and its elements in row-major order. Whatever
// the stored type, Floats has the elements as float32, exactly for floats of up to 32 bits and
// integers of up to 24; Ints has them as they are where the stored type is an integer or a boolean,
// else it is nil.
type Array struct {
	Shape  []int
	Floats []float32
	Ints   []int64
}

// Bytes returns the elements of an integer array as bytes; it fails the test where one does not
// fit.
func (a Array) Bytes(t testing.TB) []uint8 {
	t.Helper()
	out := make([]uint8, len(a.Ints))
	for i, v := range a.Ints {
		if v < 0 || v > 255 {
			t.Fatalf("element %d is %d, wanted a byte", i, v)
		}
		out[i] = uint8(v)
	}
	if a.Ints == nil {
		t.Fatalf("array %v of floats, wanted bytes", a.Shape)
	}
	return out
}

// Npy reads a .npy file; path elements are joined.
func Npy(t testing.TB, path ...string) Array {
	t.Helper()
	tensor, err := numpy.FromNpyFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return fromTensor(t, tensor)
}

// Npz reads all arrays of a .npz file; path elements are joined.
func Npz(t testing.TB, path ...string) map[string]Array {
	t.Helper()
	all, err := numpy.FromNpzFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]Array, len(all))
	for name, tensor := range all {
		out[name] = fromTensor(t, tensor)
	}
	return out
}

// notJSON matches the numbers that Python's json module writes and JSON has not.
var notJSON = regexp.MustCompile(`([:,\[]\s*)(-?Infinity|NaN)\b`)

// JSON reads a .json file into value; path elements are joined. Python's NaN and Infinity are read
// as null.
func JSON(t testing.TB, value any, path ...string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err == nil {
		err = json.Unmarshal(notJSON.ReplaceAll(data, []byte("${1}null")), value)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("reading %s: %w", filepath.Join(path...), err))
	}
}

func fromTensor(t testing.TB, tensor *tensors.Tensor) Array {
	t.Helper()
	var a Array
	tensor.MustConstFlatData(func(flat any) { a = fromFlat(t, flat) })
	a.Shape = slices.Clone(tensor.Shape().Dimensions)
	return a
}

// fromFlat converts a slice of numbers.
func fromFlat(t testing.TB, flat any) Array {
	t.Helper()
	switch x := flat.(type) {
	case []float32:
		return Array{Floats: slices.Clone(x)}
	case []float64:
		return floats(x, func(v float64) float32 { return float32(v) })
	case []float16.Float16:
		return floats(x, float16.Float16.Float32)
	case []bfloat16.BFloat16:
		return floats(x, bfloat16.BFloat16.Float32)
	case []uint8:
		return ints(x)
	case []int8:
		return ints(x)
	case []int32:
		return ints(x)
	case []int64:
		return ints(x)
	case []bool:
		bits := make([]uint8, len(x))
		for i, v := range x {
			if v {
				bits[i] = 1
			}
		}
		return ints(bits)
	}
	t.Fatalf("golden arrays of %T are not read yet", flat)
	return Array{}
}

func floats[T any](x []T, convert func(T) float32) Array {
	a := Array{Floats: make([]float32, len(x))}
	for i, v := range x {
		a.Floats[i] = convert(v)
	}
	return a
}

func ints[T uint8 | int8 | int32 | int64](x []T) Array {
	a := Array{Floats: make([]float32, len(x)), Ints: make([]int64, len(x))}
	for i, v := range x {
		a.Floats[i], a.Ints[i] = float32(v), int64(v)
	}
	return a
}

// Tensor returns the floats of a as a tensor of the given float dtype; float16 and bfloat16 are
// rounded to nearest even.
func (a Array) Tensor(dtype dtypes.DType) *tensors.Tensor {
	switch dtype {
	case dtypes.Float16:
		return tensors.FromFlatDataAndDimensions(convert(a.Floats, float16.FromFloat32), a.Shape...)
	case dtypes.BFloat16:
		return tensors.FromFlatDataAndDimensions(convert(a.Floats, bfloat16.FromFloat32), a.Shape...)
	}
	return tensors.FromFlatDataAndDimensions(slices.Clone(a.Floats), a.Shape...)
}

func convert[T, U any](x []T, f func(T) U) []U {
	out := make([]U, len(x))
	for i, v := range x {
		out[i] = f(v)
	}
	return out
}
