package llama

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// exchangeChild is set in the process that compiles for TestDevicesExchangeActivationsAlone.
const exchangeChild = "KVQ_TEST_EXCHANGE"

// exchange matches an operation of XLA that moves data between devices, with the sizes of its
// result.
var exchange = regexp.MustCompile(`= \w+\[([\d,]*)\]\S* ((?:all-|collective-|reduce-scatter|ragged-all-)[a-z-]*)\(`)

// Devices exchange two sums a layer, of the size of the hidden states, and nothing else: no cache
// and no weight ever leaves its device. Read off the programs that XLA writes down (--xla_dump_to),
// which it does for a whole process only.
func TestDevicesExchangeActivationsAlone(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	for _, name := range []string{shardedName, "qwen2.5-7b", "qwen3-0.6b"} {
		t.Run(name, func(t *testing.T) { exchangesActivationsAlone(t, name) })
	}
}

func exchangesActivationsAlone(t *testing.T, name string) {
	var model *Model
	if g, random := shapeGoldens(t)[name]; random {
		if testbackend.XLA(t).NumDevices() < 2 {
			t.Skip("two devices wanted")
		}
		model = mustLoad(t, g.folder(t), LoadOptions{Devices: 2})
		defer model.Finalize()
	} else {
		model = shardedModel(t, name, 2)
	}
	balanced, err := kvq.Preset("balanced")
	if err != nil {
		t.Fatal(err)
	}
	balanced.QGroupSizeValue = 16 // the head dim of the model
	if os.Getenv(exchangeChild) != "" {
		g := mustGenerator(t, model, balanced)
		plan, err := g.plan(3, 128)
		if err != nil {
			t.Fatal(err)
		}
		key := decodeKey{pick: GenerateConfig{}.picker(model.Config(), 3).Kind}
		for _, p := range []program{g.startPrefill(plan, 64), g.startDecode(plan, key)} {
			if err := p.Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run", "^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	child.Env = append(os.Environ(), exchangeChild+"=1", "XLA_FLAGS="+os.Getenv("XLA_FLAGS")+" --xla_dump_to="+dir)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	programs, err := filepath.Glob(filepath.Join(dir, "*after_optimizations.txt"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, path := range programs {
		name := filepath.Base(path)
		kind := ""
		for _, k := range []string{"prefillKey", "decodeKey"} {
			if strings.Contains(name, k) {
				kind = k
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all := exchange.FindAllStringSubmatch(string(text), -1)
		if kind == "" {
			if len(all) != 0 {
				t.Errorf("%s exchanges %q", name, all)
			}
			continue
		}
		found[kind]++
		c := model.Config()
		if len(all) != 2*c.Layers {
			t.Errorf("%s: %d exchanges, want two a layer", name, len(all))
		}
		for _, x := range all {
			size := 1
			for _, d := range strings.Split(x[1], ",") {
				n, err := strconv.Atoi(d)
				if err != nil {
					t.Fatalf("%q: %v", x[0], err)
				}
				size *= n
			}
			tokens := map[string]int{"prefillKey": 3 * 64, "decodeKey": 3}[kind]
			if x[2] != "all-reduce" || size != tokens*c.HiddenSize {
				t.Errorf("%s: exchanges %q, want sums of hidden states alone", name, x[0])
			}
		}
	}
	if found["prefillKey"] != 1 || found["decodeKey"] != 1 {
		t.Errorf("programs %v among %d files, want one of prefill and one of decoding", found, len(programs))
	}
}
