package nb

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// weight is a variable of a model as it lies in a file.
type weight struct {
	Dims   []int
	Values []float32
}

// SaveWeights keeps what a model has learned for later cells, as [Save] does: the variables that
// training changes, float32, by their paths. The optimizer's own are left out.
func SaveWeights(name string, settings any, store *model.Store) {
	weights, err := weightsOf(store)
	Check(err)
	Save(name, settings, weights)
}

// LoadWeights is a store with the weights that an earlier cell saved. As [Load] does, it ends the
// cell where they were made with other settings.
func LoadWeights(name string, settings any) *model.Store {
	return Must(storeOf(Load[map[string]weight](name, settings)))
}

func weightsOf(store *model.Store) (map[string]weight, error) {
	weights := map[string]weight{}
	for v := range store.IterVariables() {
		if !v.Trainable {
			continue
		}
		if v.Shape().DType != dtypes.Float32 {
			return nil, fmt.Errorf("nb.SaveWeights: want weights in float32, %s is %s", v.Path(), v.Shape())
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		values, err := tensors.CopyFlatData[float32](value)
		if err != nil {
			return nil, err
		}
		weights[v.Path()] = weight{v.Shape().Dimensions, values}
	}
	return weights, nil
}

func storeOf(weights map[string]weight) (*model.Store, error) {
	store := model.NewStore()
	for path, w := range weights {
		if _, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(w.Values, w.Dims...)); err != nil {
			return nil, err
		}
	}
	return store, nil
}
