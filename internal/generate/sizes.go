package generate

// PromptColumns rounds a prompt's length up to one of a few sizes, each of which is compiled once:
// powers of two and the steps halfway between them, from 16 on, so that at most a third of the
// columns is added padding.
func PromptColumns(length int) int {
	for size := 16; ; size *= 2 {
		if length <= size {
			return size
		}
		if size > 16 && length <= size*3/2 {
			return size * 3 / 2
		}
	}
}

// FirstCapacity is how many slots a cache begins with, for a prompt of so many columns and at most
// limit new tokens. Up to 1,024 the cache holds the whole generation from the start: the unused
// slots cost less time than another compilation. Longer ones begin with less and grow, since
// attention may read every slot.
func FirstCapacity(columns, limit int) int {
	const small, headroom = 1024, 256
	whole := capacity(columns + limit - 1)
	return min(whole, max(small, capacity(columns+headroom)))
}

// NextCapacity is how many slots a full cache grows to, for slots in all: twice as many, or as many
// as it takes.
func NextCapacity(full, slots int) int { return min(2*full, capacity(slots)) }

// capacity rounds a number of slots up to one of a few sizes: powers of two from 128 on, beyond
// 1,024 in quarters of the way to the next. There what a token takes goes with the slots more than
// with all else, empty ones included.
func capacity(slots int) int {
	size := 128
	for size < slots {
		size *= 2
	}
	if size > 1024 { // slots is more than half of it
		part := size / 8
		return (slots + part - 1) / part * part
	}
	return size
}
