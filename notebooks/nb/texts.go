package nb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/janpfeifer/gonb/gonbui"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// Texts are prompts and what a model has written after them, row by row. Padding is left out.
type Texts struct {
	Prompts      []string
	PromptTokens []int // of each row
	// New are the new tokens of each row, Pieces the text that became certain with each of them: ""
	// where its character is not complete yet.
	New    [][]tokenizer.Token
	Pieces [][]string

	live    *Live
	streams []*tokenizer.Stream
}

// Texts begins to show the texts of a batch, which grow with [Texts.Add].
func (l *Live) Texts(tok *tokenizer.Tokenizer, batch tokenizer.Batch) *Texts {
	t := newTexts(tok, batch)
	t.live = l
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = t
	return t
}

func newTexts(tok *tokenizer.Tokenizer, batch tokenizer.Batch) *Texts {
	t := &Texts{New: make([][]tokenizer.Token, len(batch.IDs)), Pieces: make([][]string, len(batch.IDs))}
	for i := range batch.IDs {
		t.Prompts = append(t.Prompts, tok.Decode(batch.Row(i), true))
		t.PromptTokens = append(t.PromptTokens, len(batch.Row(i)))
		t.streams = append(t.streams, tok.StreamAfter(batch.Row(i), true))
	}
	return t
}

// Add takes the next tokens of each row.
func (t *Texts) Add(tokens [][]tokenizer.Token) {
	if t.live != nil {
		t.live.mu.Lock()
		defer t.live.mu.Unlock()
		defer t.live.draw()
	}
	for row, fresh := range tokens {
		for _, id := range fresh {
			t.New[row] = append(t.New[row], id)
			t.Pieces[row] = append(t.Pieces[row], t.streams[row].Push(id))
		}
	}
}

func (t *Texts) html() string {
	var b strings.Builder
	for row, prompt := range t.Prompts {
		fmt.Fprintf(&b, "<p>%s<b>%s</b></p>", escaped(prompt), escaped(strings.Join(t.Pieces[row], "")))
	}
	return b.String()
}

func (t *Texts) plain() string {
	var b strings.Builder
	for row, prompt := range t.Prompts {
		fmt.Fprintf(&b, "%s%s\n", prompt, strings.Join(t.Pieces[row], ""))
	}
	return b.String()
}

// PartMark stands in front of the first token that two texts do not share.
const PartMark = "▶"

// Beside shows two runs of the same prompts in two columns. [PartMark] stands where they part.
func Beside(left, right string, a, b *Texts) {
	shown, err := beside(left, right, a, b)
	Check(err)
	if gonbui.IsNotebook {
		gonbui.DisplayHTML(shown)
		flush()
		return
	}
	fmt.Println(shown)
}

func beside(left, right string, a, b *Texts) (string, error) {
	if !slices.Equal(a.Prompts, b.Prompts) {
		return "", fmt.Errorf("nb.Beside: want two runs of the same prompts, got %q and %q", a.Prompts, b.Prompts)
	}
	const cell = `<td style="text-align:left;vertical-align:top">%s</td>`
	var out strings.Builder
	fmt.Fprintf(&out, `<table><thead><tr><th style="text-align:left">%s</th><th style="text-align:left">%s</th></tr></thead><tbody>`, escaped(left), escaped(right))
	for row, prompt := range a.Prompts {
		at := Shared(a.New[row], b.New[row])
		out.WriteString("\n<tr>")
		for _, t := range []*Texts{a, b} {
			pieces := t.Pieces[row]
			text := escaped(prompt+strings.Join(pieces[:at], "")) + markAt(pieces, at, min(len(a.New[row]), len(b.New[row])))
			fmt.Fprintf(&out, cell, text)
		}
		out.WriteString("</tr>")
	}
	out.WriteString("\n</tbody></table>")
	return out.String(), nil
}

// markAt is the rest of a text from the token at on, in bold after the mark. Texts that share all
// of shorter tokens do not part.
func markAt(pieces []string, at, shorter int) string {
	rest := escaped(strings.Join(pieces[at:], ""))
	if at == shorter {
		return rest
	}
	return "<mark>" + PartMark + "</mark><b>" + rest + "</b>"
}

// Shared is how many tokens two texts have in common before they part.
func Shared(a, b []tokenizer.Token) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// escaped is text as HTML shows it. Quotation marks are no trouble there, and stay readable in the
// file.
func escaped(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\n", "<br>").Replace(text)
}
