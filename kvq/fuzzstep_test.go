package kvq_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// stepCaches are small caches of every policy, that FuzzStep changes.
var stepCaches = []suiteCase{
	{name: "quanto", config: Config{Backend: Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 4}, dtype: dtypes.Float32, dim: 16},
	{name: "blocks", config: Config{Backend: Blocks, NBits: 3, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: PerChannel, ResidualLength: 2, Sinks: 1, Scales: Scale8}, dtype: dtypes.Float16, dim: 16},
	{name: "full", dtype: dtypes.Float32, dim: 16},
}

// FuzzStep takes saved caches whose numbers somebody changed, and whose digest they made anew: they
// are refused in one line, or the next steps end soon, in a state that can be saved again. Three
// bytes are a change: of which array, at which place, to which value.
func FuzzStep(f *testing.F) {
	testlane.Slow(f, "compiles a prompt and a step for three caches")
	type saved struct {
		file []byte
		s    *session
	}
	var list []saved
	for _, c := range stepCaches {
		shape := c.shape(2, 64)
		shape.Layers = 1
		s := newSession(f, newPlan(f, c.config, shape), makeInputs(3, shape, suiteHeads, 64, 0, 3))
		s.prompt(40)
		path := filepath.Join(f.TempDir(), "cache")
		if err := Save(path, s.plan, s.state); err != nil {
			f.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		s.fork().step(1) // compiles
		list = append(list, saved{file, s})
	}
	for cache := range byte(len(list)) {
		f.Add(cache, []byte{})
		f.Add(cache, []byte{0, 0, 0})           // length 0
		f.Add(cache, []byte{0, 0, 64, 1, 1, 9}) // length 64: no room
		f.Add(cache, []byte{2, 0, 0, 2, 1, 255, 3, 0, 1, 4, 5, 6, 5, 7, 8})
	}
	f.Fuzz(func(t *testing.T, cache byte, changes []byte) {
		one := list[int(cache)%len(list)]
		data := changed(one.file, one.s.plan, changes)
		plan, state, err := ReadCache(bytes.NewReader(signed(data)), int64(len(data)))
		if err != nil {
			if bytes.ContainsAny([]byte(err.Error()), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		s := one.s.fork()
		s.t, s.plan, s.state = t, plan, state
		// A step that hangs cannot be cancelled.
		hangs := time.AfterFunc(time.Minute, func() { panic("a step does not end") })
		defer hangs.Stop()
		s.slots = int(tensors.ToScalar[int32](state[0]))
		for range 3 {
			if s.slots+1 > plan.Shape().Capacity {
				break
			}
			s.step(1)
		}
		if err := Save(filepath.Join(t.TempDir(), "again"), plan, s.state); err != nil {
			t.Error(err)
		}
	})
}

// changed is a saved file with changes made to its arrays.
func changed(file []byte, p *Plan, changes []byte) []byte {
	file = bytes.Clone(file)
	start := 8 + int(binary.LittleEndian.Uint64(file))
	for ; len(changes) >= 3; changes = changes[3:] {
		at := start
		arrays := p.Arrays()
		which := int(changes[0]) % len(arrays)
		for _, a := range arrays[:which] {
			at += int(a.Shape.Memory())
		}
		place := int(changes[1])
		if a := arrays[which]; a.Shape.DType == dtypes.Int32 {
			at += 4 * (place % max(1, a.Shape.Size()))
			binary.LittleEndian.PutUint32(file[at:], uint32(int32(int8(changes[2]))))
		} else if n := int(a.Shape.Memory()); n > 0 {
			file[at+place*37%n] = changes[2]
		}
	}
	return file
}
