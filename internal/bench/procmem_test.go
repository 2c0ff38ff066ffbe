package bench

import "testing"

func TestParseStatus(t *testing.T) {
	got := parseStatus([]byte("Name:\tkvq\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n"))
	if want := (ProcessMemory{Resident: 1 << 20, Peak: 2 << 20}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
