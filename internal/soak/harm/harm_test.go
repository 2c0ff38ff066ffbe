package harm

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/soak"
)

func TestMain(m *testing.M) {
	soak.RunChild()
	os.Exit(m.Run())
}

// The quick form of every part.
func TestQuick(t *testing.T) { soak.QuickTest(t, Parts) }

// The fuzz part knows every fuzz target of the clone, and CONTRIBUTING names them.
func TestFuzzTargets(t *testing.T) {
	const root = "../../.."
	contributing, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	missing := map[target]bool{}
	for _, one := range targets {
		missing[one] = true
		if !regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(one.folder) + "` \\|.*`" + one.name + "`").Match(contributing) {
			t.Errorf("CONTRIBUTING.md does not name %s", one)
		}
	}
	function := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return errorsOrSkip(err)
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, m := range function.FindAllSubmatch(source, -1) {
			one := target{filepath.ToSlash(folder), string(m[1])}
			if !missing[one] {
				t.Errorf("the fuzz part does not know %s", one)
			}
			delete(missing, one)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for one := range missing {
		t.Errorf("%s is not there", one)
	}
}

func errorsOrSkip(err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}
