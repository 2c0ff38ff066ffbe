package generate

import "testing"

func TestPromptColumns(t *testing.T) {
	for length, want := range map[int]int{1: 16, 16: 16, 17: 32, 33: 48, 49: 64, 65: 96, 100: 128, 129: 192, 1025: 1536, 2048: 2048} {
		if got := PromptColumns(length); got != want {
			t.Errorf("PromptColumns(%d) = %d, want %d", length, got, want)
		}
	}
}

func TestFirstCapacity(t *testing.T) {
	for _, c := range []struct{ columns, limit, want int }{
		{16, 1, 128}, {64, 65, 128}, {64, 66, 256}, {512, 513, 1024}, // the whole generation
		{16, 5000, 1024}, {1024, 1, 1024}, // as many as nobody pays for
		{1024, 2, 1280}, {1024, 5000, 1280}, {1536, 5000, 1792}, // of which 256 are for new tokens
		{2048, 20, 2560}, {2048, 5000, 2560}, {3072, 5000, 3584}, {4096, 5000, 5120}, {7936, 300, 8192},
	} {
		if got := FirstCapacity(c.columns, c.limit); got != c.want {
			t.Errorf("FirstCapacity(%d, %d) = %d, want %d", c.columns, c.limit, got, c.want)
		}
	}
}

func TestNextCapacity(t *testing.T) {
	for _, c := range []struct{ full, slots, want int }{
		{1024, 5000, 2048}, {2560, 4095, 4096}, {2560, 4097, 5120}, {2560, 9000, 5120}, {1024, 1025, 1280},
	} {
		if got := NextCapacity(c.full, c.slots); got != c.want {
			t.Errorf("NextCapacity(%d, %d) = %d, want %d", c.full, c.slots, got, c.want)
		}
	}
}
