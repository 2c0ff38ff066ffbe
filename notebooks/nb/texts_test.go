package nb

import (
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// texts are rows of tokens, each of which is a letter.
func texts(prompts []string, rows ...string) *Texts {
	t := &Texts{Prompts: prompts}
	for _, row := range rows {
		var ids []tokenizer.Token
		for _, letter := range row {
			ids = append(ids, tokenizer.Token(letter))
		}
		t.New, t.Pieces = append(t.New, ids), append(t.Pieces, strings.Split(row, ""))
	}
	return t
}

// The mark stands where the texts part, and nowhere else: not before a text that is a beginning of
// the other, whose tokens they share.
func TestBesideMarksWhereTextsPart(t *testing.T) {
	prompts := []string{"p<", "q", "r", "s"}
	a := texts(prompts, "abcd", "same", "x", "long")
	b := texts(prompts, "abXd", "same", "y\n", "longer")
	got, err := beside("one", "two & three", a, b)
	if err != nil {
		t.Fatal(err)
	}
	td := `<td style="text-align:left;vertical-align:top">`
	for _, want := range []string{
		`<th style="text-align:left">two &amp; three</th>`,
		"<tr>" + td + "p&lt;ab<mark>▶</mark><b>cd</b></td>" + td + "p&lt;ab<mark>▶</mark><b>Xd</b></td></tr>",
		"<tr>" + td + "qsame</td>" + td + "qsame</td></tr>",
		"<tr>" + td + "r<mark>▶</mark><b>x</b></td>" + td + "r<mark>▶</mark><b>y<br></b></td></tr>",
		"<tr>" + td + "slong</td>" + td + "slonger</td></tr>",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if _, err := beside("one", "two", a, texts([]string{"other"}, "abcd")); err == nil {
		t.Error("runs of different prompts were put side by side")
	}
}

// While something is waited for a line says so, with the seconds; at the end only the texts stay.
func TestLiveShowsWhatIsWaitedFor(t *testing.T) {
	l := NewLive("loading <the model>")
	l.texts = texts([]string{"Hello"}, " you")
	if got, want := l.html(), "<p><i>loading &lt;the model&gt;, 0 s</i></p><p>Hello<b> you</b></p>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	l.Progress("step 3 of 9")
	if got, want := l.html(), "<p><i>step 3 of 9, 0 s</i></p><p>Hello<b> you</b></p>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	l.Done()
	l.Progress("too late")
	l.Done() // once more is no trouble
	if got, want := l.html(), "<p>Hello<b> you</b></p>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
