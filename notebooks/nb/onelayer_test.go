package nb

import (
	"math"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// Codes in place give what a program gives that unpacks them first, which needs the cache in full
// precision as temporary memory; in place, all of the cache is written over the old one.
func TestStepsOfOneLayer(t *testing.T) {
	testlane.OnlyAll(t, "compiles eight steps")
	const tokens = 512
	backend := testbackend.XLA(t)
	for _, config := range []kvq.Config{{}, kvq.Tutorial()} {
		unpacked := AttendUnpacked(backend, config, tokens)
		attended := Attend(backend, config, kvq.Auto, tokens)
		for i := range unpacked.Out {
			if off := math.Abs(unpacked.Out[i] - attended.Out[i]); !(off < 1e-5) {
				t.Fatalf("%s: output %d is off by %g", config, i, off)
			}
		}
		if len(unpacked.Out) != queryHeads*headDim || attended.Took <= 0 {
			t.Errorf("%s: %d outputs in %s", config, len(unpacked.Out), attended.Took)
		}
		if full := int64(2 * tokens * kvHeads * headDim * 4); config.Quantized() != (unpacked.Temporary >= full) {
			t.Errorf("%s: unpacking takes %d bytes beside, full precision is %d", config, unpacked.Temporary, full)
		}
		in, copied := Append(backend, config, tokens, true), Append(backend, config, tokens, false)
		if in.Reused != in.Cache || copied.Reused != 0 {
			t.Errorf("%s: of %d bytes %d are reused in place, %d in a copy", config, in.Cache, in.Reused, copied.Reused)
		}
	}
}
