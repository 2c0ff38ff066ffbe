package browsertest

import (
	"os/exec"
	"strings"
	"testing"
)

// gitStatus is what git says of the clone.
func gitStatus(t *testing.T, root string) string {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "status", "--porcelain").CombinedOutput()
	if err != nil {
		t.Fatalf("git status: %v\n%s", err, out)
	}
	return string(out)
}

// The printed address opens the first notebook, a copy of the reader's own, and what is done there
// leaves the clone as it was.
func TestPrintedAddress(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	before := gitStatus(t, lab.Root)
	n := lab.Open(b, lab.Address)
	if !strings.HasPrefix(n.Path, "my-notebooks") || !strings.HasSuffix(n.Path, "/01-kv-cache-quantization.ipynb") {
		t.Errorf("%s opens %s", lab.Address, n.Path)
	}
	if n.Dirty() {
		t.Error("the notebook has changes right after it was opened")
	}
	n.Run(n.Find("%noautoget"))
	c := n.Run(n.Find("device.List()"))
	if c.Failed || !strings.Contains(c.Text, "xla:cpu") {
		t.Errorf("the list of devices: %+v", c)
	}
	n.Save()
	if after := gitStatus(t, lab.Root); after != before {
		t.Errorf("git status was %q, and is %q", before, after)
	}
	b.Picture("opened")
}
