#!/usr/bin/env python3
"""Makes static pages of the notebooks as they are committed, with their outputs, and an index.

usage: book.py [--out FOLDER]

Nothing is executed. The pages need no server, no script and no network: figures lie beside them, and what a notebook
links to in this repository is a page of its own. Links to anything else in the repository go to its address.
FOLDER (.setup/book) is made anew; one that holds something other than a book is left alone.

The script scripts/workbook calls this with the Python of the set-up.
"""

import argparse
import base64
import html
import os
import pathlib
import posixpath
import re
import shutil
import struct
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ADDRESS = "https://github.com/kvqbook/kvqbook/blob/main/"  # of what is no page
MARK = "book.txt"  # in every book, so that a folder is known as one

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
</head>
<body>
{before}
<main>
{body}
</main>
{after}
</body>
</html>
"""


class Fault(Exception):
    """Something in the notebooks that a page cannot show."""


class Page:
    """A file of the repository as a page: source is its path there, soup the body."""

    def __init__(self, source, name, soup):
        self.source, self.name, self.soup = source, name, soup
        for a in soup.find_all("a", class_="anchor-link"):
            a.decompose()
        heading = soup.find("h1")
        self.title = heading.get_text(" ", strip=True) if heading else source


CODE = []  # coloured code, which is most of a page and stays as it is: parsed pages hold its number in place of it


def soup_of(text):
    import bs4

    def set_aside(match):
        CODE.append(match[0])
        return f'<pre data-code="{len(CODE) - 1}"></pre>'

    return bs4.BeautifulSoup(re.sub(r'<div class="\s*highlight\b[^"]*">\s*<pre>.*?</pre>\s*</div>', set_aside, text, flags=re.S), "html.parser")


def text_of(soup):
    return re.sub(r'<pre data-code="(\d+)"></pre>', lambda match: CODE[int(match[1])], str(soup))


def markdown(text):
    from nbconvert.filters.markdown import markdown2html

    return markdown2html(text)


class Book:
    def __init__(self, notebooks, out):
        self.notebooks, self.out = notebooks, out
        self.pages = {}  # by source
        self.figures = 0

    def make(self):
        sentences = self.sentences()
        for path in self.notebooks:
            source = self.source(path)
            if path.name not in sentences:
                raise Fault(f"{path.name} has no line in the table of notebooks/README.md, which the index is made of")
            self.add(Page(source, path.stem + ".html", soup_of(self.cells(path))))
            print(f"  {path.name}", flush=True)
        chapters = list(self.pages.values())
        for page in chapters:
            self.name_documents(page)
            for source in self.linked(page):
                self.add(self.document(source))
        for page in self.pages.values():
            self.finish(page)
        for page in self.pages.values():
            self.links(page)
        self.style()
        for page in self.pages.values():
            self.write(page, chapters)
        self.index(chapters, sentences)

    def source(self, path):
        return path.resolve().relative_to(ROOT).as_posix()

    def add(self, page):
        if page.source in self.pages:
            return
        if any(other.name == page.name for other in self.pages.values()):
            raise Fault(f"two pages would be {page.name}")
        self.pages[page.source] = page

    def sentences(self):
        """What each notebook is about, from the table of the README."""
        found = {}
        for line in (ROOT / "notebooks/README.md").read_text(encoding="utf-8").splitlines():
            if row := re.match(r"\| \[([\w.-]+\.ipynb)\]\([^)]*\) \| (.+) \|$", line):
                found[row[1]] = row[2]
        return found

    def cells(self, path):
        """A notebook as HTML, without a page around it."""
        import nbformat
        from nbconvert import HTMLExporter

        nb = nbformat.read(path, as_version=4)
        for n, cell in enumerate(nb.cells, 1):
            prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.S)
            if cell.cell_type == "markdown" and re.search(r"\$[^$\n]+\$|\\\(|\\\[", prose):
                raise Fault(f"{path.name}: cell {n} has LaTeX, which pages without scripts do not show; write it as code")
        exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(HERE / "templates")])
        return exporter.from_notebook_node(nb, {"metadata": {"name": path.stem}})[0]

    def document(self, source):
        """A file that a notebook links to."""
        path = ROOT / source
        text = path.read_text(encoding="utf-8")
        # Parts of the notebooks' folder keep their short names.
        name = re.sub(r"^notebooks/", "", source).replace("/", "-") + ".html"
        if path.suffix == ".md":
            return Page(source, name.replace(".md.html", ".html"), soup_of(markdown(text)))
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import TextLexer, get_lexer_for_filename
        from pygments.util import ClassNotFound

        try:
            lexer = get_lexer_for_filename(path.name)
        except ClassNotFound:
            lexer = TextLexer()
        body = f"<h1>{html.escape(source)}</h1>" + highlight(text, lexer, HtmlFormatter())
        return Page(source, name, soup_of(body))

    def resolve(self, page, href):
        """The path in the repository that a link of a page means, or None, and its fragment."""
        path, _, fragment = href.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:|//", href, re.I):
            return None, ""
        if not path:
            return page.source, fragment
        return posixpath.normpath(posixpath.join(posixpath.dirname(page.source), path)), fragment

    def name_documents(self, page):
        """Where prose names a document of this repository as `docs/x.md`, it becomes a link."""
        for code in page.soup.find_all("code"):
            text = code.get_text()
            if code.find_parent(["a", "pre"]) or not re.fullmatch(r"[\w-]+(/[\w.-]+)*\.md", text) or not (ROOT / text).is_file():
                continue
            code.wrap(page.soup.new_tag("a", href=posixpath.relpath(text, posixpath.dirname(page.source))))

    def linked(self, page):
        """The files of the repository that a page links to and that can be pages."""
        for a in page.soup.find_all("a", href=True):
            source, _ = self.resolve(page, a["href"])
            if source and source not in self.pages and (ROOT / source).is_file():
                if (ROOT / source).suffix in (".md", ".go", ".py", ".txt"):
                    yield source

    def finish(self, page):
        """Brings a page's body into the form that the style knows."""
        soup = page.soup
        for tag in soup.find_all(["script", "button", "input", "select", "iframe", "link"]):
            tag.decompose()  # a static page does nothing
        # Two cells with the same heading, or ids of outputs, are told apart.
        for tag in soup.find_all(id=True):
            if tag.name not in ("h1", "h2", "h3", "h4"):
                del tag["id"]
        seen = set()
        for heading in soup.find_all(["h1", "h2", "h3", "h4"]):
            slug = base = re.sub(r"[^\w\- ]", "", heading.get_text().strip().lower()).replace(" ", "-") or "part"
            n = 0
            while slug in seen:
                n += 1
                slug = f"{base}-{n}"
            seen.add(slug)
            heading["id"] = slug
        self.images(page)
        for pre in soup.find_all("pre"):
            box = soup.new_tag("div", attrs={"class": "box text" if pre.find_parent(class_="output") else "box code", "tabindex": "0"})
            pre.wrap(box)
        for table in soup.find_all("table"):
            table.wrap(soup.new_tag("div", attrs={"class": "box", "tabindex": "0"}))

    def images(self, page):
        for n, img in enumerate(page.soup.find_all("img"), 1):
            alt = " ".join((img.get("alt") or "").split())
            if not alt:
                raise Fault(f"{page.source}: picture {n} has no text that stands for it")
            src = img["src"]
            if found := re.match(r"data:image/png;base64,(.*)", src, re.S):
                data, name = base64.b64decode(found[1]), f"{pathlib.PurePosixPath(page.name).stem}-{n}.png"
            else:
                source, _ = self.resolve(page, src)
                if not source or not (ROOT / source).is_file():
                    raise Fault(f"{page.source}: a picture is not in this repository: {src[:80]}")
                data, name = (ROOT / source).read_bytes(), source.replace("/", "-")
            (self.out / "figures").mkdir(exist_ok=True)
            (self.out / "figures" / name).write_bytes(data)
            img.attrs = {"src": "figures/" + name, "alt": alt, "loading": "lazy"}
            if data[:8] == b"\x89PNG\r\n\x1a\n":
                img["width"], img["height"] = struct.unpack(">II", data[16:24])
            if not img.find_parent("a"):  # on a phone one wants to look closer
                img.wrap(page.soup.new_tag("a", attrs={"class": "figure", "href": img["src"]}))
            self.figures += 1

    def links(self, page):
        """Links between files become links between pages; what is no page is at the repository's address."""
        for a in page.soup.find_all("a", href=True):
            source, fragment = self.resolve(page, a["href"])
            if source is None or "figure" in a.get("class", []):
                continue
            target = self.pages.get(source)
            if target is None:
                if not (ROOT / source).exists():
                    raise Fault(f"{page.source}: a link goes to {a['href']}, which is not there")
                a["href"] = ADDRESS + source + ("#" + fragment if fragment else "")
                continue
            if fragment and target.soup.find(id=fragment) is None:
                raise Fault(f"{page.source}: a link goes to {a['href']}, and that has no such part")
            a["href"] = ("" if target is page else target.name) + ("#" + fragment if fragment else "") or target.name

    def style(self):
        from pygments.formatters import HtmlFormatter

        colors = HtmlFormatter(style="default").get_style_defs(".highlight")
        own = (HERE / "style.css").read_text(encoding="utf-8")
        # GoNB's own lines in a cell are no Go: they are not marked as errors.
        (self.out / "style.css").write_text(colors + "\n.highlight { background: none; }\n.highlight .err { border: 0; color: inherit; }\n" + own, encoding="utf-8")

    def put(self, name, title, body, way):
        nav = f'<nav class="way">{way}</nav>'
        (self.out / name).write_text(PAGE.format(title=html.escape(title), body=body, before=nav, after=nav), encoding="utf-8")

    def write(self, page, chapters):
        way = ['<a href="index.html">All notebooks</a>']
        if page in chapters:
            at = chapters.index(page)
            if at > 0:
                way.append(f'<a href="{chapters[at - 1].name}">← {html.escape(chapters[at - 1].title)}</a>')
            if at + 1 < len(chapters):
                way.append(f'<a class="next" href="{chapters[at + 1].name}">{html.escape(chapters[at + 1].title)} →</a>')
        parts = page.soup.find_all("h2")
        heading = page.soup.find("h1")
        if len(parts) > 2 and heading:
            items = "".join(f'<li><a href="#{h["id"]}">{html.escape(h.get_text().strip())}</a></li>' for h in parts)
            heading.insert_after(soup_of(f"<details><summary>On this page</summary><ul>{items}</ul></details>"))
        self.put(page.name, page.title, text_of(page.soup), "\n".join(way))

    def index(self, chapters, sentences):
        items, answers, documents = [], [], []
        for page in chapters:
            notebook = posixpath.basename(page.source)
            sentence = soup_of(markdown(sentences[notebook])).get_text().strip()
            sentence = sentence[:1].upper() + sentence[1:]
            figures = len(page.soup.find_all("img"))
            number = re.match(r"\d+", notebook)
            value = f' value="{int(number[0])}"' if number else ""
            size = (self.out / page.name).stat().st_size
            size += sum((self.out / img["src"]).stat().st_size for img in page.soup.find_all("img"))
            items.append(f'<li{value}><a href="{page.name}"><strong>{html.escape(page.title)}</strong></a><br>{html.escape(sentence)}.'
                         f'<br><span class="small">{size / 1000:.0f} kB with its {figures} figures · <code>notebooks/{notebook}</code></span></li>')
        for page in self.pages.values():
            if page not in chapters:
                kind = documents if page.source.endswith(".md") else answers
                kind.append(f'<li><a href="{page.name}">{html.escape(page.title)}</a></li>')
        body = f"""<h1>kvqbook: quantized key/value caches, in notebooks</h1>
<p>A language model that writes keeps keys and values of every token it has read. This course shows what that cache is,
what storing it in a few bits saves and costs, and how to use it in Go, with GoMLX and XLA. These pages are the
notebooks as they were executed: text, code, and what came out.</p>
<h2 id="the-notebooks">The notebooks</h2>
<ol class="parts">
{chr(10).join(items)}
</ol>
<h2 id="running-them">Running them</h2>
<p>Everything in them may be changed, and the exercises check what you write. In a clone of
<a href="https://github.com/kvqbook/kvqbook">the repository</a>, on Linux:</p>
<div class="box code" tabindex="0"><pre>./scripts/workbook          # sets up what is missing, opens JupyterLab
./scripts/workbook run      # executes them without it
./scripts/workbook book     # makes these pages again</pre></div>
<h2 id="what-they-link-to">What they link to</h2>
<p>Documents of the library:</p>
<ul>
{chr(10).join(documents)}
</ul>
<p>Answers to the exercises, and other files:</p>
<ul>
{chr(10).join(answers)}
</ul>"""
        self.put("index.html", "kvqbook: the notebooks", body, "")
        (self.out / MARK).write_text("A book made by kvqbook's scripts/workbook book: open index.html.\n", encoding="utf-8")


def sizes(out):
    """Bytes of the largest page, of all pages, and of all figures."""
    pages = sorted(p.stat().st_size for p in out.glob("*.html"))
    return pages[-1], sum(pages), sum(p.stat().st_size for p in out.glob("figures/*"))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0], description=__doc__.split("\n\n", 2)[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / ".setup" / "book", help=argparse.SUPPRESS)
    args = parser.parse_args()
    out = args.out.absolute()
    if out.is_symlink() or out.exists() and (not out.is_dir() or any(out.iterdir()) and not (out / MARK).is_file()):
        print(f"book: wanted a folder that is empty, not there or holds a book, {out} is something else", file=sys.stderr)
        return 2
    print("making pages of", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(prefix=out.name + ".part-", dir=out.parent))
    try:
        book = Book(sorted((ROOT / "notebooks").glob("*.ipynb")), part)
        book.make()
        part.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(part, out)
    except Fault as fault:
        print(f"book: {fault}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(part, ignore_errors=True)
    largest, pages, figures = sizes(out)
    print(f"{len(book.notebooks)} notebooks, {len(book.pages) - len(book.notebooks)} pages that they link to, {book.figures} figures: "
          f"{(pages + figures) / 1e6:.1f} MB; the largest page has {largest / 1000:.0f} kB and loads figures as they are reached")
    print(f"open {out}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
