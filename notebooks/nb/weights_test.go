package nb

import (
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// What is saved comes back bit for bit, and what training does not change stays behind.
func TestWeightsComeBack(t *testing.T) {
	t.Setenv("GONB_TMP_DIR", t.TempDir())
	type made struct{ Steps int }
	store := model.NewStore()
	want := []float32{0.1, -2, 3e-30, 4, 1.0 / 3, 6}
	create := func(path string, value *tensors.Tensor) *model.Variable {
		v, err := store.CreateVariable(path, value)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	create("/layer_0/dense/weights", tensors.FromFlatDataAndDimensions(want, 2, 3))
	create("/optimizer/step", tensors.FromValue(float32(7))).SetTrainable(false)
	SaveWeights("weights", made{3}, store)
	back := LoadWeights("weights", made{3})
	if back.NumVariables() != 1 || back.NumParameters() != 6 {
		t.Fatalf("%d variables of %d numbers came back, want 1 of 6", back.NumVariables(), back.NumParameters())
	}
	v := back.GetVariable("/layer_0/dense/weights")
	if got := tensors.MustCopyFlatData[float32](v.MustValue()); !slices.Equal(got, want) || !slices.Equal(v.Shape().Dimensions, []int{2, 3}) {
		t.Errorf("%v of shape %s, want %v", got, v.Shape(), want)
	}
}

func TestWeightsWantFloat32(t *testing.T) {
	store := model.NewStore()
	if _, err := store.CreateVariable("/counts", tensors.FromValue([]int32{1})); err != nil {
		t.Fatal(err)
	}
	if _, err := weightsOf(store); err == nil {
		t.Error("whole numbers were kept as weights")
	}
}
