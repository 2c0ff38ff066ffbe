package browsertest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The pages that scripts/workbook book makes, on a phone and on a projector: nothing is wider than
// the window, every picture is seen, and no page asks another place for anything.
func TestBook(t *testing.T) {
	b := Open(t, 390, 844)
	dir := filepath.Join(t.TempDir(), "book")
	if out, err := exec.Command("../../.setup/venv/bin/python", "../../notebooks/book/book.py", "--out", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.html"))
	if err != nil || len(pages) < 2 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, width := range []int{390, 1280} {
		for _, page := range pages {
			name := fmt.Sprintf("book-%s-%d", strings.TrimSuffix(filepath.Base(page), ".html"), width)
			b.Size(width, 844)
			b.Visit("file://" + page)
			if wide := Value[int](b, "document.documentElement.scrollWidth"); wide > width {
				t.Errorf("%s: the page is %d wide: %s", name, wide, Value[string](b, widest))
			}
			// They load as they come near.
			Value[int](b, `document.querySelectorAll("img").forEach(i => i.loading = "eager"), 0`)
			b.Wait("pictures", `[...document.images].every(i => i.complete)`)
			if lost := Value[string](b, `[...document.images].filter(i => !i.naturalWidth || i.getBoundingClientRect().right > innerWidth).map(i => i.src).join(" ")`); lost != "" {
				t.Errorf("%s: pictures that are not seen whole: %s", name, lost)
			}
			if small := Value[string](b, `[...document.querySelectorAll("main p, main pre")].filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(e => e.innerText.slice(0, 40)).join("; ")`); small != "" {
				t.Errorf("%s: too small to read: %s", name, small)
			}
			tall := Value[int](b, "document.documentElement.scrollHeight")
			b.Size(width, min(tall, 12000))
			b.Picture(name)
		}
	}
	for _, url := range b.Requests() {
		if !strings.HasPrefix(url, "file://"+dir) {
			t.Errorf("a page asked for %s", url)
		}
	}
}

// widest names the elements that stand out of the page.
const widest = `[...document.querySelectorAll("main *")].filter(e => !e.closest(".box") && e.getBoundingClientRect().right > innerWidth)
	.map(e => e.tagName + " " + e.innerText?.slice(0, 60)).slice(0, 3).join("; ")`
