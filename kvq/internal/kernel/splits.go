package kernel

import "github.com/kvqbook/kvqbook/internal/ptx"

// stages is how many iterations are under way at once: while one computes, what the next two read
// is on its way. With one, a warp waits for memory three times an iteration, and a processor has
// too few warps to fill the time: 32 rows of 4,096 tokens took an H200 0.27 ms with one stage, 0.25
// with two and 0.22 with three (docs/bench-log.md).
const stages = 3

// h100Processors stand for a GPU that does not tell how many it has; attend.Choose then says so.
const h100Processors = 132

// h100Shared is the shared memory of a processor, in bytes. A program takes 1,024 beside its own.
const h100Shared = 228 << 10

// programs is how many programs share a head of a row: those for codes, then those for exact
// tokens.
func (k Attention) programs() int      { return k.splits + k.exactPrograms() }
func (k Attention) exactPrograms() int { return (k.Exact + exactTile - 1) / exactTile }

// chooseSplits is how many programs share a head's blocks (split-K). Programs that read codes come
// first in the grid and take equally long, so the grid should be whole waves: with 1,024 heads an
// H200 reads 2.8 TB/s with one program a head, and 3.7 with three, which are two waves. It takes
// the fewest waves that leave at most a tenth of the GPU idle, because every program costs a launch
// and one more part to merge; where no number does that, the number that leaves least. Programs for
// exact tokens come last and fill what is left.
func (k Attention) chooseSplits() int {
	processors := k.Processors
	if processors == 0 {
		processors = h100Processors
	}
	heads, wave := k.Batch*k.Heads*k.programsOfHead(), k.resident()*processors
	most := max(1, k.Blocks/k.tile)
	if k.units {
		// What a program does before its first block takes nearly as long as a block. So each has
		// two blocks or more, and from eight programs a processor on, eight: with one row and
		// four queries a head an H200 took 0.016 ms for 4,096 tokens, and 0.018 with one block a
		// program; 0.029 ms for 32,768, and 0.031 with five.
		most = max(1, min(most/2, max(k.Blocks/8, 8*processors/heads)))
	}
	best, busiest, fewest := 1, 0.0, 0
	for n := 1; n <= most; n++ {
		waves := (n*heads + wave - 1) / wave
		if busiest >= 0.9 && waves > fewest {
			break
		}
		if busy := float64(n*heads) / float64(waves*wave); busy > busiest {
			best, busiest, fewest = n, busy, waves
		}
	}
	return best
}

// resident is how many programs a processor runs at once. Their registers decide, of which it has
// 65,536: 168 a thread, which most kernels take, make 12, and 255 make 8.
func (k Attention) resident() int {
	if k.takesBytes() {
		return k.residentBytes()
	}
	if k.units { // shared memory may allow fewer than registers do
		return max(1, min(65536/ptx.Lanes/k.unitRegisters(), h100Shared/(unitsStages*k.unitStage().size+1024)))
	}
	if k.queriesPerProgram*k.width() > 128 {
		return 8
	}
	return 12
}

// residentBytes is resident for the form by bytes. A quarter of a processor's registers serves its
// warps whole, so these are 16 with 128 registers a lane, and 12 with up to 168. Where keys and
// values both have two planes, 128 would spill: preset smallest took an H200 0.134 ms with 12, and
// 0.142 with 16.
func (k Attention) residentBytes() int {
	most := 16
	if len(k.Key.Planes()) > 1 && len(k.Value.Planes()) > 1 {
		most = 12
	}
	_, _, _, size := k.pairShared()
	return max(1, min(most, h100Shared/(size+1024)))
}
