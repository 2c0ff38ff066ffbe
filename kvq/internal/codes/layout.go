package codes

// BlockTokens is the unit of storage: codes of so many consecutive tokens of one head lie together.
//
// A block is a small matrix of rows and lanes, packed along the rows (see words.go):
//
//	keys    rows = the D channels, lanes = the 32 tokens
//	values  rows = the 32 tokens, lanes = the D channels
//
// Attention sums over rows in both cases (scores over channels, outputs over tokens), so the lanes
// are independent: one vectorised loop unpacks, multiplies and adds, and nothing dequantized is
// ever stored. 32 lanes of a byte each fill the vectors of CPUs and GPUs alike.
const BlockTokens = 32

// Layout is how codes, scales and zero points of keys or values lie. It is comparable.
type Layout struct {
	Keys    bool // else values
	HeadDim int
	Bits    int  // of a code
	Packed  bool // else each code is a number of its own dtype
	Group   int  // values that share a scale: channels of a token, or tokens of a channel
	// PerChannel: a group is one channel of Group tokens. Otherwise it is Group channels of one
	// token.
	PerChannel bool
}

// Matrix is rows and lanes of a block.
func (l Layout) Matrix() (rows, lanes int) {
	if l.Keys {
		return l.HeadDim, BlockTokens
	}
	return BlockTokens, l.HeadDim
}

// Groups is the number of scales of one token and head; 1 where groups run along tokens.
func (l Layout) Groups() int {
	if l.PerChannel {
		return 1
	}
	return l.HeadDim / l.Group
}

// blockWords is how many words of 32 bits the codes of a block of a head fill, without padding.
func (l Layout) blockWords() int { return l.HeadDim * l.Bits }

// tokenAxis is the axis of the tokens in unpacked codes of blocks.
func (l Layout) tokenAxis() int {
	if l.Keys {
		return 4
	}
	return 3
}

// Plane is where a plane of codes lies.
type Plane struct {
	Width  int // bits of each code that it holds
	Low    int // the first of them
	First  int // word of a part that the plane begins with
	Count  int // words of a part
	Fields int // codes in a word
}

// Planes are the planes of packed codes, low bits first.
func (l Layout) Planes() []Plane {
	words, first, low := l.Words(), 0, 0
	var list []Plane
	for _, w := range planes(l.Bits) {
		p := Plane{Width: w, Low: low, First: first, Count: words.Count(w), Fields: words.Bits / w}
		list = append(list, p)
		first, low = first+p.Count, low+w
	}
	return list
}

// WordsOfPart is how many words a part of a head has in all planes.
func (l Layout) WordsOfPart() int {
	sum := 0
	for _, p := range l.Planes() {
		sum += p.Count
	}
	return sum
}
