package main

import (
	"strings"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// newTexts are the new tokens of a batch and their text, as they come. Not safe for concurrent use.
type newTexts struct {
	ids [][]tokenizer.Token
	// text that became certain with each token, "" where its character is not complete yet
	pieces  [][]string
	streams []*tokenizer.Stream
	stops   []*tokenizer.Stopper
}

// startTexts begins with the prompts, so that a text goes on as the prompt wants it:
// SentencePiece's decoder drops the blank of a first word. Each ends before one of stops.
func startTexts(tok *tokenizer.Tokenizer, b *batch, stops ...string) *newTexts {
	r := &newTexts{ids: make([][]tokenizer.Token, len(b.IDs)), pieces: make([][]string, len(b.IDs))}
	for i := range b.IDs {
		r.ids[i] = []tokenizer.Token{} // [] in JSON, not null
		r.streams = append(r.streams, tok.StreamAfter(b.Row(i), true))
		r.stops = append(r.stops, tokenizer.NewStopper(stops...))
	}
	return r
}

// add takes the next tokens of each row and returns their text.
func (r *newTexts) add(fresh [][]tokenizer.Token) []string {
	texts := make([]string, len(r.ids))
	for i, tokens := range fresh {
		for _, id := range tokens {
			piece, _ := r.stops[i].Push(r.streams[i].Push(id))
			r.ids[i], r.pieces[i] = append(r.ids[i], id), append(r.pieces[i], piece)
			texts[i] += piece
		}
	}
	return texts
}

// end completes the texts: broken characters become U+FFFD. It returns what that adds to each row.
func (r *newTexts) end() []string {
	texts := make([]string, len(r.ids))
	for i, s := range r.streams {
		texts[i], _ = r.stops[i].Push(s.Flush())
		texts[i] += r.stops[i].Flush()
		if texts[i] != "" {
			last := len(r.pieces[i]) - 1
			if last < 0 { // cannot be: only a token leaves bytes waiting
				continue
			}
			r.pieces[i][last] += texts[i]
		}
	}
	return texts
}

// text is a row's new text so far.
func (r *newTexts) text(i int) string { return strings.Join(r.pieces[i], "") }
