package nb

import (
	"fmt"
	"strings"

	"github.com/janpfeifer/gonb/gonbui"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// Places shows a row's tokens as text, each in the way that a cache holds it: the first sinks in
// full precision for good, the coded ones after them as codes, the others in the window.
func Places(tok *tokenizer.Tokenizer, ids []tokenizer.Token, sinks, coded int) {
	stream := tok.StreamAfter(nil, true)
	pieces := make([]string, len(ids))
	for i, id := range ids {
		pieces[i] = stream.Push(id)
	}
	shown := places(pieces, sinks, coded)
	if gonbui.IsNotebook {
		gonbui.DisplayHTML(shown)
		flush()
		return
	}
	fmt.Println(shown)
}

// Told apart without colours too: sinks are bold, codes plain, the window is underlined.
var placeStyles = []struct{ name, style string }{
	{"sink", "background:#f0c34a;color:#222b35;font-weight:bold"},
	{"codes", "background:#b9dcd8;color:#222b35"},
	{"window", "background:#f9e6b3;color:#222b35;text-decoration:underline"},
}

func places(pieces []string, sinks, coded int) string {
	var b strings.Builder
	span := func(place int, text string) {
		fmt.Fprintf(&b, `<span style="%s">%s</span>`, placeStyles[place].style, text)
	}
	sinks = min(sinks, len(pieces))
	ends := []int{sinks, min(sinks+coded, len(pieces)), len(pieces)}
	b.WriteString("<p>")
	from := 0
	for place, end := range ends {
		if end > from {
			span(place, escaped(strings.Join(pieces[from:end], "")))
		}
		from = max(from, end)
	}
	b.WriteString("</p>\n<p>")
	from = 0
	for place, end := range ends {
		span(place, fmt.Sprintf("%s: %d tokens", placeStyles[place].name, end-from))
		b.WriteString(" ")
		from = end
	}
	b.WriteString("</p>")
	return b.String()
}
