package nb

import (
	"math"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// A head of 32 tokens of 8 channels, each channel of which goes from -t to t: per channel in groups
// of 32 and 8 bits, every number comes back within half a step; the codes pack into words.
func TestThroughGivesWhatTheCacheKeeps(t *testing.T) {
	testlane.Slow(t, "runs a cache")
	var head Head
	for token := range 32 {
		row := make([]float64, 8)
		for d := range row {
			row[d] = float64(d+1) * (float64(token)/15.5 - 1)
		}
		head = append(head, row)
	}
	config := kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 32, AxisKey: kvq.PerChannel, AxisValue: kvq.PerChannel, Scales: kvq.ScaleFloat32}
	kept, err := through(testbackend.XLA(t), config, Layer{[]Head{head}, []Head{head}})
	if err != nil {
		t.Fatal(err)
	}
	if kept.Tokens() != 32 || kept.BitsPerValue != 6 || len(kept.Words) != 1 {
		t.Fatalf("%d tokens, %g bits a value, %d words", kept.Tokens(), kept.BitsPerValue, len(kept.Words))
	}
	for token, row := range head {
		var word uint32
		for d, x := range row {
			step := 2 * float64(d+1) / 15
			code := kept.Codes.Keys[0][token][d]
			if back := kept.Back.Keys[0][token][d]; math.Abs(back-x) > step/2+1e-5 || math.Abs(back-(step*code-float64(d+1))) > 1e-5 {
				t.Errorf("token %d, channel %d: %g came back as %g, code %g", token, d, x, back, code)
			}
			word |= uint32(code) << (4 * d)
		}
		if kept.Words[0][token] != word {
			t.Errorf("token %d: word %#x, want %#x", token, kept.Words[0][token], word)
		}
	}
	if _, err := through(testbackend.XLA(t), kvq.Config{}, Layer{[]Head{head}, []Head{head}}); err == nil {
		t.Error("a full-precision cache was accepted")
	}
}
