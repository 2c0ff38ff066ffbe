package harm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/kvq"
)

func init() { soak.RegisterChild("save", saveForEver) }

// emptyCache is a cache of some 13 MB without tokens, whose codes and scales are all one byte.
func emptyCache(fill byte) (*kvq.Plan, []*tensors.Tensor, error) {
	plan, err := kvq.New(kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 32, ResidualLength: 32},
		kvq.Shape{Layers: 4, Batch: 1, KVHeads: 4, HeadDim: 64, Capacity: 8192, DType: dtypes.Float16})
	if err != nil {
		return nil, nil, err
	}
	var state []*tensors.Tensor
	for i, shape := range plan.Shapes() {
		b := fill
		switch {
		case i < 4: // length, start, next and used
			b = 0
		case i < 6: // codeIndex and exactIndex: -1 for no token
			b = 0xFF
		}
		x := tensors.FromShape(shape)
		if err := x.MutableBytes(func(data []byte) {
			for i := range data {
				data[i] = b
			}
		}); err != nil {
			return nil, nil, err
		}
		state = append(state, x)
	}
	return plan, state, nil
}

// saveForEver saves two caches in turn to the path that is its argument.
func saveForEver(args []string) error {
	for n := 0; ; n++ {
		plan, state, err := emptyCache(byte(1 + n%2))
		if err != nil {
			return err
		}
		fmt.Println("saving")
		if err := kvq.Save(args[0], plan, state); err != nil {
			return err
		}
		fmt.Println("saved")
	}
}

// killSave kills a process that saves a cache. The file is whole then, or not there yet; and the
// next Save leaves it alone in its folder.
func killSave(ctx context.Context, s *soak.Sitting, random *rand.Rand) error {
	dir, err := os.MkdirTemp(s.Folder(), "save-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "cache")
	p, err := start(s.Child(ctx, "save", path))
	if err != nil {
		return err
	}
	if !p.says("saving", time.Minute) {
		p.kill(true)
		return fmt.Errorf("the process that saves did not begin: %s", &p.out)
	}
	time.Sleep(time.Duration(random.Int64N(int64(250 * time.Millisecond))))
	p.kill(true)
	loaded, _, err := kvq.Load(path)
	switch {
	case err != nil && !os.IsNotExist(cause(err)):
		s.Fail(nil, "a killed Save left a file that does not load: %v", err)
	case err != nil && strings.Contains(p.out.String(), "saved"):
		s.Fail(nil, "a killed Save took the file of the one before away")
	case err == nil && loaded.Shape().Capacity != 8192:
		s.Fail(nil, "a killed Save left another cache")
	}
	plan, state, err := emptyCache(3)
	if err != nil {
		return err
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		s.Count("temporary files that a killed save left and the next removed", len(left))
	}
	if err := kvq.Save(path, plan, state); err != nil {
		s.Fail(nil, "Save after a kill: %v", err)
	}
	s.Try("save")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		s.Fail(nil, "after a kill and a Save %v lie in the folder (error %v), want the file alone", entries, err)
	}
	return nil
}

// cause is the innermost error.
func cause(err error) error {
	for {
		next, ok := err.(interface{ Unwrap() error })
		if !ok || next.Unwrap() == nil {
			return err
		}
		err = next.Unwrap()
	}
}
