package tokenizer

import (
	"container/heap"
	"unicode/utf8"
)

// bpe joins symbols, beginning with single characters, always the pair of the best rank, the
// leftmost first. (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword
// Units".) Ranks are the merges' order in tokenizer.json, or the order of the joined pieces' scores
// in SentencePiece.
type bpe struct {
	tokens []string         // by id; "" where there is none
	used   []bool           // by id: the vocabulary has it
	ids    map[string]Token // of tokens
	merges map[pair]merge

	// symbols that may be joined but are no tokens themselves (only in SentencePiece: a character
	// that occurs inside pieces alone); their ids follow after those of tokens.
	inner map[string]int32

	byteIDs     *[256]Token // ids of <0x00> to <0xFF>; nil without byte fallback
	unknown     Token       // -1: unknown characters vanish
	fuseUnknown bool        // several unknown characters in a row make one unknown token
	// a word that is a token is that token, whether merges lead to it or not (Llama-3)
	ignoreMerges bool
}

type pair struct{ left, right int32 }

type merge struct{ rank, id int32 }

// noSymbol is a character that no merge knows.
const noSymbol = -1

// symbol is a node of a doubly linked list over a word.
type symbol struct {
	id         int32
	prev, next int32 // indices; -1 at the ends
	start, end int32 // bytes of the word; start == end once it was joined to its left neighbour
}

// candidate is a pair that may be joined, unless one of the two has changed since.
type candidate struct {
	merge
	position    int32 // index of the left symbol
	left, right int32 // ids at the time
}

type candidates []candidate

func (c candidates) Len() int      { return len(c) }
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c candidates) Less(i, j int) bool {
	if c[i].rank != c[j].rank {
		return c[i].rank < c[j].rank
	}
	return c[i].position < c[j].position
}
func (c *candidates) Push(x any) { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// encode appends the ids of one word, in O(n log n): Llama-2 has no pre-tokenizer, so a word may be
// a whole book.
func (m *bpe) encode(ids []Token, word string) []Token {
	if word == "" {
		return ids
	}
	if m.ignoreMerges {
		if id, found := m.ids[word]; found {
			return append(ids, id)
		}
	}
	symbols := m.join(m.split(word))
	if len(symbols) == 0 {
		return ids
	}
	unknowns := false // whether the token before is an unknown one of this word
	for i := int32(0); i >= 0; i = symbols[i].next {
		s := symbols[i]
		if s.id >= 0 && int(s.id) < len(m.tokens) {
			ids = append(ids, s.id)
			unknowns = false
			continue
		}
		text := word[s.start:s.end]
		if m.byteIDs != nil {
			for _, b := range []byte(text) {
				ids = append(ids, m.byteIDs[b])
			}
			unknowns = false
			continue
		}
		if m.unknown >= 0 && !(unknowns && m.fuseUnknown) {
			ids = append(ids, m.unknown)
			unknowns = true
		}
	}
	return ids
}

// split makes one symbol of each character. Where there is no token for unknown ones they vanish
// here, and their neighbours may join.
func (m *bpe) split(word string) []symbol {
	symbols := make([]symbol, 0, utf8.RuneCountInString(word))
	for start := 0; start < len(word); {
		_, size := utf8.DecodeRuneInString(word[start:])
		text := word[start : start+size]
		id, found := m.ids[text]
		if !found {
			if id, found = m.inner[text]; !found {
				if m.unknown < 0 && m.byteIDs == nil {
					start += size
					continue
				}
				id = noSymbol
			}
		}
		n := int32(len(symbols))
		symbols = append(symbols, symbol{id: id, prev: n - 1, next: n + 1, start: int32(start), end: int32(start + size)})
		start += size
	}
	if len(symbols) > 0 {
		symbols[len(symbols)-1].next = -1
	}
	return symbols
}

func (m *bpe) join(symbols []symbol) []symbol {
	var queue candidates
	offer := func(position int32) {
		if position < 0 || symbols[position].next < 0 {
			return
		}
		left, right := symbols[position].id, symbols[symbols[position].next].id
		if joined, found := m.merges[pair{left, right}]; found {
			queue = append(queue, candidate{joined, position, left, right})
		}
	}
	for i := range symbols {
		offer(int32(i))
	}
	heap.Init(&queue)
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		left := &symbols[c.position]
		if left.start == left.end || left.id != c.left || left.next < 0 || symbols[left.next].id != c.right {
			continue
		}
		right := &symbols[left.next]
		left.id, left.end, left.next = c.id, right.end, right.next
		right.start, right.end = 0, 0
		if left.next >= 0 {
			symbols[left.next].prev = c.position
		}
		for _, position := range []int32{left.prev, c.position} {
			n := len(queue)
			if offer(position); len(queue) > n {
				heap.Fix(&queue, n) // append put it at the end: let it rise
			}
		}
	}
	return symbols
}
