package harm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/soak"
)

func init() { soak.RegisterChild("compile", compileOne) }

// compileOne compiles and runs a graph that takes XLA a second, and prints what it gives, bit by
// bit.
func compileOne([]string) error {
	backend, err := device.Open(device.XLACPU)
	if err != nil {
		return err
	}
	fmt.Println("compiling")
	results, err := MustNewExec(backend, func(x *Node) *Node {
		for i := range 24 {
			x = Tanh(Add(Dot(x, x).Product(), MulScalar(Sin(x), float64(i+1))))
			x = Where(GreaterThan(x, ZerosLike(x)), Mul(x, Softmax(x, -1)), Cos(x))
		}
		return x
	}).Exec(tensors.FromFlatDataAndDimensions([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9}, 3, 3))
	if err != nil {
		return err
	}
	fmt.Printf("result %x\n", tensors.MustCopyFlatData[float32](results[0]))
	return nil
}

// killCompile kills a process that compiles with a folder for what it compiled: in half of the
// tries just when a file is written there. The next process, and the one after it, give the same
// result.
func killCompile(ctx context.Context, s *soak.Sitting, random *rand.Rand) error {
	dir, err := os.MkdirTemp(s.Folder(), "compile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	compile := func(folder string) (*process, error) {
		cmd := s.Child(ctx, "compile")
		cmd.Env = append(cmd.Env, asset.EnvCompiled+"="+folder)
		return start(cmd)
	}
	whole := func(folder string) (string, error) {
		p, err := compile(folder)
		if err != nil {
			return "", err
		}
		err = <-p.ended
		_, line, found := strings.Cut(p.out.String(), "result ")
		if ctx.Err() == nil && (err != nil || !found) {
			return "", fmt.Errorf("%v: %s", err, &p.out)
		}
		return line, nil
	}
	want := s.Kept("compile result")
	if want == "" {
		began := time.Now()
		if want, err = whole(asset.Off); err != nil || ctx.Err() != nil {
			return err
		}
		s.Keep("compile result", want)
		s.Keep("compile time", time.Since(began).String())
	}
	took, _ := time.ParseDuration(s.Kept("compile time"))
	p, err := compile(dir)
	if err != nil {
		return err
	}
	if s.Tried("compile cache")%2 == 0 {
		for p.running() {
			if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
				time.Sleep(time.Duration(random.Int64N(int64(2 * time.Millisecond))))
				s.Count("kills while a compiled graph was written", 1)
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
	} else {
		time.Sleep(time.Duration(random.Int64N(int64(took + took/4))))
	}
	p.kill(true)
	s.Try("compile cache")
	for _, when := range []string{"after a kill", "once more"} {
		got, err := whole(dir)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || got != want {
			s.Fail([]byte(got), "compiling %s: %v, result %.80s, want %.80s", when, err, got, want)
		}
	}
	return nil
}
