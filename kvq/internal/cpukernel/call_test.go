//go:build linux && cgo

package cpukernel_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/compute/xla"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/cpukernel"
)

// steps are two steps of two layers over a made-up cache of so many tokens.
type steps struct {
	exec *Exec
	args []any
}

func newSteps(t *testing.T, backend compute.Backend, tokens int) *steps {
	t.Helper()
	shape := kvq.Shape{Layers: 2, Batch: 2, KVHeads: 2, HeadDim: 64, Capacity: tokens + 32, DType: dtypes.Float32}
	plan, err := kvq.New(kvq.Tutorial(), shape)
	if err != nil {
		t.Fatal(err)
	}
	if form, reason := plan.Form(backend, 1); form != kvq.Kernel {
		t.Fatalf("form %s (%s), want the kernel", form, reason)
	}
	fill := MustNewExec(backend, func(one *Node) []*Node { return kvqhook.Synthetic(plan, one.Graph(), tokens) })
	defer fill.Finalize()
	s := &steps{}
	for _, x := range fill.MustCall(int32(0)) {
		s.args = append(s.args, x)
	}
	s.exec = MustNewExec(backend, func(in []*Node) *Node {
		q := Cos(gx.MulScalar(ConvertDType(IotaFull(in[0].Graph(), shapes.Make(dtypes.Int32, 2, 6, 1, 64)), dtypes.Float32), 1e-2))
		c := plan.From(in)
		for range 2 {
			for layer := range 2 {
				token := Slice(q, AxisRange(), AxisRange(0, 2))
				c.Layer(layer).Append(token, token)
				q = gx.MulScalar(Add(q, c.Layer(layer).Attend(q)), 0.5)
			}
			c.Advance()
		}
		return q
	})
	t.Cleanup(s.exec.Finalize)
	return s
}

// run returns the bits of the result.
func (s *steps) run() ([]byte, error) {
	out, err := s.exec.Call(s.args...)
	if err != nil {
		return nil, err
	}
	var bits []byte
	for _, x := range tensors.MustCopyFlatData[float32](out[0]) {
		bits = binary.LittleEndian.AppendUint32(bits, math.Float32bits(x))
	}
	return bits, nil
}

// Calls at the same time, which cannot all have the threads that help, give what each gives alone:
// long ones, whose pieces are shared, and short ones.
func TestCallsAtTheSameTime(t *testing.T) {
	for _, tokens := range []int{64, 8192} {
		s := newSteps(t, testbackend.XLA(t), tokens)
		want, err := s.run()
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 25 {
					if got, err := s.run(); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d tokens: another result than alone (%v)", tokens, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

// A call that was made for another number of inputs is an error, not a crash.
func TestCallOfOtherInputs(t *testing.T) {
	backend := testbackend.XLA(t)
	if lacks := cpukernel.Lacks(backend); lacks != "" {
		t.Fatal(lacks)
	}
	exec := MustNewExec(backend, func(x *Node) *Node {
		return gx.HostCall(cpukernel.Target, []*Node{Const(x.Graph(), make([]int32, 43)), x}, x.Shape())[0]
	})
	defer exec.Finalize()
	if _, err := exec.Call([]float32{1}); err == nil || !strings.Contains(err.Error(), "want 12 inputs and 1 result, got 2 and 1") {
		t.Errorf("%v, want an error that counts the inputs", err)
	}
}

func TestLacks(t *testing.T) {
	if lacks := cpukernel.Lacks(testbackend.Go(t)); lacks != "not XLA's plugin for a CPU" {
		t.Errorf("the pure-Go backend lacks %q", lacks)
	}
}

// What tells a process of TestProcesses what to do.
const (
	childOpens   = "KVQ_TEST_CPUKERNEL_OPENS" // "device", or "go-xla"
	childMessage = "result "
)

// Other processes, which know of the function when it is needed at last: one that keeps what XLA
// compiled, one that finds it on the disk, and one whose backend go-xla opened by itself. All give
// the same bits.
func TestProcesses(t *testing.T) {
	path, err := asset.CPUPlugin()
	if err != nil {
		if os.Getenv(testbackend.RequireVariable) == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if opens := os.Getenv(childOpens); opens != "" {
		child(t, opens, path)
		return
	}
	dir := t.TempDir()
	run := func(opens, dir string) string {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestProcesses$", "-test.v")
		cmd.Env = append(os.Environ(), childOpens+"="+opens, asset.EnvCompiled+"="+dir)
		out, err := cmd.CombinedOutput()
		_, result, ok := strings.Cut(string(out), childMessage)
		if err != nil || !ok {
			t.Fatalf("%s: %v\n%s", opens, err, out)
		}
		result, _, _ = strings.Cut(result, "\n")
		return result
	}
	want := run("device", dir)
	kept := keptWithCall(t, dir)
	long := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(kept, long, long); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(kept)
	if err != nil {
		t.Fatal(err)
	}
	if got := run("device", dir); got != want {
		t.Error("what was kept on the disk gives another result")
	}
	// A file is marked when it is read, and written anew where XLA did not take it.
	if after, err := os.Stat(kept); err != nil || !os.SameFile(before, after) || !after.ModTime().After(long) {
		t.Errorf("what was kept was not loaded (%v)", err)
	}
	if got := run("go-xla", asset.Off); got != want {
		t.Error("a backend that go-xla opened gives another result")
	}
}

// keptWithCall is the file of a folder that holds the call.
func keptWithCall(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.xla"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if content, err := os.ReadFile(name); err == nil && bytes.Contains(content, []byte(cpukernel.Target)) {
			return name
		}
	}
	t.Fatalf("none of %d kept programs has the call", len(names))
	return ""
}

func child(t *testing.T, opens, path string) {
	backend, err := compute.Backend(nil), error(nil)
	if opens == "device" {
		backend, err = device.Open(device.XLACPU)
	} else {
		backend, err = xla.New(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	bits, err := newSteps(t, backend, 64).run()
	runtime.KeepAlive(backend)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(childMessage + hex.EncodeToString(bits))
}
