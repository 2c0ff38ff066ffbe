package harm

import (
	"testing"
)

// A process that takes more than its group allows is killed, one that takes less is not: the soak
// tells the two apart.
func TestGroupsWithLimits(t *testing.T) {
	for mib, want := range map[int64]int{16: 137, 512: 0} {
		g, err := newGroup(mib << 20)
		if err != nil {
			t.Skipf("control groups cannot be made here: %v", err)
		}
		r, err := run(g.command(t.Context(), "sh", "-c", `head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null; exit $?`))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.remove(); err != nil {
			t.Error(err)
		}
		if r.status != want {
			t.Errorf("%d MiB: %s, want exit status %d", mib, r, want)
		}
	}
}
