//go:build unix

package trust_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/trust"
)

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	me := trust.Me()
	for _, c := range []struct {
		name   string
		owners trust.Owners
		mode   os.FileMode
		says   string // in the error, "" for none
		isMode bool
	}{
		{"mine", me, 0o644, "", false},
		{"mine, and all may read and enter", me, 0o755, "", false},
		{"a group may write", me, 0o664, "can be written by others (mode 0664)", true},
		{"all may write", me, 0o646, "can be written by others (mode 0646)", true},
		{"somebody else's", trust.Owners{me[0] + 1}, 0o600, "belongs to user", false},
		{"one of two", trust.Owners{me[0] + 1}.And(me[0]), 0o600, "", false},
		{"nobody is trusted", nil, 0o600, "belongs to user", false},
	} {
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		err = c.owners.Check(path, info)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		refused, ok := err.(*trust.Error)
		if !ok || !strings.Contains(refused.Text, c.says) || refused.Mode != c.isMode || !strings.HasPrefix(refused.Text, path) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}
