package device

import "testing"

func TestFullName(t *testing.T) {
	t.Setenv(EnvDefault, "cpu")
	for name, want := range map[string]string{"": XLACPU, "cpu": XLACPU, "cuda": XLACUDA, "gpu": XLACUDA, XLACUDA: XLACUDA, "go": PureGo, "go:ops_sequential": PureGo, "xla:/p.so": "xla:/p.so", "tpu": "tpu"} {
		if got := fullName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
