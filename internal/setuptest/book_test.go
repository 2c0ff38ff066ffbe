package setuptest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// makeBook makes the pages of the committed notebooks.
func makeBook(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	dir := root(t)
	python := filepath.Join(dir, ".setup", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
			t.Fatalf("%s is not there; run ./scripts/setup", python)
		}
		t.Skipf("%s is not there; run ./scripts/setup", python)
	}
	// What Python reads, go test does not see: it would take an old result for a new one.
	for _, name := range []string{"README.md", "book/book.py", "book/style.css", "book/templates/page/index.html.j2"} {
		if _, err := os.ReadFile(filepath.Join(dir, "notebooks", name)); err != nil {
			t.Fatal(err)
		}
	}
	return call(t, exec.Command(python, append([]string{filepath.Join(dir, "notebooks", "book", "book.py")}, args...)...))
}

// page is what a page holds: ids, links, the addresses of what it loads, and pictures without alt.
type page struct {
	title         string
	ids           map[string]int
	links, loads  []string
	silent, holds int // pictures without a text for them, pictures
	tags          map[string]int
	text          string
}

func readPage(t *testing.T, path string) page {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parsePage(t, data)
}

func parsePage(t *testing.T, data []byte) page {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	p := page{ids: map[string]int{}, tags: map[string]int{}}
	var text strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode {
			text.WriteString(n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		p.tags[n.Data]++
		if n.Data == "title" && n.FirstChild != nil {
			p.title = n.FirstChild.Data
		}
		alt := ""
		for _, a := range n.Attr {
			switch {
			case a.Key == "id":
				p.ids[a.Val]++
			case a.Key == "alt":
				alt = strings.TrimSpace(a.Val)
			case n.Data == "a" && a.Key == "href":
				p.links = append(p.links, a.Val)
			case a.Key == "src" || a.Key == "srcset" || a.Key == "poster" || a.Key == "data" || n.Data == "link" && a.Key == "href":
				p.loads = append(p.loads, a.Val)
			}
		}
		if n.Data == "img" {
			p.holds++
			if alt == "" {
				p.silent++
			}
		}
	}
	p.text = text.String()
	return p
}

// The book of the committed notebooks: a page for each, every link leads somewhere, nothing comes
// from another place, every picture has a text that stands for it, no id stands twice.
func TestBook(t *testing.T) {
	out := filepath.Join(t.TempDir(), "book")
	stdout, stderr, status := makeBook(t, "--out", out)
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	if !strings.Contains(stdout, " MB; the largest page has ") || !strings.HasSuffix(stdout, "open "+out+"/index.html\n") {
		t.Errorf("it says %q", stdout)
	}
	paths, err := filepath.Glob(filepath.Join(out, "*.html"))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]page{}
	for _, path := range paths {
		pages[filepath.Base(path)] = readPage(t, path)
	}
	notebooks, err := filepath.Glob(filepath.Join(root(t), "notebooks", "*.ipynb"))
	if err != nil || len(notebooks) == 0 {
		t.Fatalf("%d notebooks, %v", len(notebooks), err)
	}
	index := pages["index.html"]
	for _, path := range notebooks {
		name := strings.TrimSuffix(filepath.Base(path), ".ipynb") + ".html"
		p, made := pages[name]
		if !made || !strings.Contains(strings.Join(index.links, " "), name) || !strings.Contains(index.text, p.title) {
			t.Errorf("%s: a page: %v, and the index links to %v", name, made, index.links)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if pictures := bytes.Count(data, []byte(`"image/png": "`)); p.holds != pictures {
			t.Errorf("%s has %d pictures, the notebook %d", name, p.holds, pictures)
		}
	}
	linked := map[string]bool{"index.html": true}
	for name, p := range pages {
		if p.title == "" || strings.Contains(p.title, "¶") || p.tags["h1"] != 1 || p.tags["main"] != 1 {
			t.Errorf("%s: title %q, %d h1", name, p.title, p.tags["h1"])
		}
		if p.silent > 0 {
			t.Errorf("%s: %d of %d pictures have no alt", name, p.silent, p.holds)
		}
		if n := p.tags["script"] + p.tags["iframe"]; n > 0 {
			t.Errorf("%s: %d scripts and frames", name, n)
		}
		for id, n := range p.ids {
			if n > 1 {
				t.Errorf("%s: the id %q stands %d times", name, id, n)
			}
		}
		for _, address := range p.loads {
			if address == "data:," { // no icon
				continue
			}
			if _, err := os.Stat(filepath.Join(out, address)); err != nil {
				t.Errorf("%s: loads %s: %v", name, address, err)
			}
		}
		for _, link := range p.links {
			if strings.HasPrefix(link, "https://") {
				continue
			}
			target, fragment, _ := strings.Cut(link, "#")
			if target == "" {
				target = name
			}
			linked[target] = true
			to, isPage := pages[target]
			if _, err := os.Stat(filepath.Join(out, target)); err != nil {
				t.Errorf("%s: a link leads to %s: %v", name, link, err)
			} else if fragment != "" && (!isPage || to.ids[fragment] == 0) {
				t.Errorf("%s: a link leads to %s, and that page has no such part", name, link)
			}
		}
	}
	for name := range pages {
		if !linked[name] {
			t.Errorf("no link leads to %s", name)
		}
	}
	style, err := os.ReadFile(filepath.Join(out, "style.css"))
	if err != nil || bytes.Contains(style, []byte("url(")) || bytes.Contains(style, []byte("@import")) {
		t.Errorf("the style asks for something else (%v)", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*.part-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}

	// Made again in its place, and never over something else.
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := makeBook(t, "--out", other); status != 2 || !strings.Contains(stderr, "wanted a folder that is empty") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("over a folder with something else: exit status %d, %q", status, stderr)
	}
	if _, err := os.Stat(filepath.Join(other, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

// The reading of pages sees what it is to see.
func TestPagesAreRead(t *testing.T) {
	p := parsePage(t, []byte(`<title>T</title><h2 id=a>x</h2><p id=a><img src=x.png alt=" "><img src="https://example.com/y.png" alt=y>`+
		`<a href="z.html#part">z</a><script src="https://example.com/s.js"></script>`))
	if p.title != "T" || p.ids["a"] != 2 || p.silent != 1 || p.holds != 2 || p.tags["script"] != 1 ||
		strings.Join(p.loads, " ") != "x.png https://example.com/y.png https://example.com/s.js" || strings.Join(p.links, "") != "z.html#part" {
		t.Errorf("%+v", p)
	}
}

// What a page could not show is said, with the notebook it is in, and no book is left behind.
func TestBookRefuses(t *testing.T) {
	testlane.OnlyAll(t, "starts a Python for each fault")
	markdown := func(text string) string {
		return `{"cell_type": "markdown", "id": "a", "metadata": {}, "source": ` + strconv.Quote(text) + `}`
	}
	picture := func(alt string) string {
		return `{"cell_type": "code", "id": "b", "metadata": {}, "execution_count": 1, "source": "x", "outputs": [{"output_type": "display_data",
			"metadata": {"image/png": {"alt": "` + alt + `"}}, "data": {"image/png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}}]}`
	}
	row := "| [a.ipynb](a.ipynb) | what it is *about* |\n"
	for name, c := range map[string]struct{ cell, readme, want string }{
		"right":              {markdown("See [that](other.md#a-part), [this](#title) and [more](data.bin).") + "," + picture("a dot"), row, ""},
		"not in the README":  {markdown("text"), "", "a.ipynb has no line in the table of notebooks/README.md"},
		"LaTeX":              {markdown("so $x^2$ grows"), row, "a.ipynb: cell 2 has LaTeX"},
		"a price":            {markdown("`$HOME` and 5 $ are none"), row, ""},
		"no alt":             {picture(" "), row, "notebooks/a.ipynb: picture 1 has no text that stands for it"},
		"a dead link":        {markdown("[that](gone.md)"), row, "notebooks/a.ipynb: a link goes to gone.md, which is not there"},
		"a dead part":        {markdown("[that](other.md#b)"), row, "a link goes to other.md#b, and that has no such part"},
		"a picture far away": {markdown("![x](https://example.com/x.png)"), row, "notebooks/a.ipynb: a picture is not in this repository"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "notebooks", "book"), os.DirFS(filepath.Join(root(t), "notebooks", "book"))); err != nil {
				t.Fatal(err)
			}
			notebook := `{"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "gonb", "display_name": "Go", "language": "go"}}, "cells": [` +
				markdown("# Title") + "," + strings.Replace(c.cell, `"id": "a"`, `"id": "c"`, 1) + "]}"
			for file, text := range map[string]string{"README.md": c.readme, "a.ipynb": notebook, "other.md": "# Other\n\n## A part\n", "data.bin": ""} {
				if err := os.WriteFile(filepath.Join(dir, "notebooks", file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out := filepath.Join(dir, "out", "book")
			python := filepath.Join(root(t), ".setup", "venv", "bin", "python")
			_, stderr, status := call(t, exec.Command(python, filepath.Join(dir, "notebooks", "book", "book.py"), "--out", out))
			left, _ := os.ReadDir(filepath.Join(dir, "out"))
			if c.want != "" {
				if status != 1 || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 || len(left) > 0 {
					t.Errorf("exit status %d, %q, %v; want 1, one line with %q and nothing left", status, stderr, left, c.want)
				}
				return
			}
			if status != 0 || len(left) != 1 {
				t.Fatalf("exit status %d, %q, %v", status, stderr, left)
			}
			p := readPage(t, filepath.Join(out, "a.html"))
			links := strings.Join(p.links, " ")
			if name == "right" && (p.silent > 0 || p.holds != 1 || !strings.Contains(links, "other.html#a-part #title https://github.com/kvqbook/kvqbook/blob/main/notebooks/data.bin figures/a-1.png")) {
				t.Errorf("%d pictures, links %s", p.holds, links)
			}
			if index := readPage(t, filepath.Join(out, "index.html")); !strings.Contains(index.text, "What it is about.") {
				t.Errorf("the index says %q", index.text)
			}
		})
	}
}
