#!/usr/bin/env python3
"""Executes the notebooks with the GoNB kernel, or checks the outputs they were committed with.

usage: run.py [--save] [--out FOLDER] [--timeout SECONDS] [NOTEBOOK...]
       run.py --check [NOTEBOOK...]
       run.py --imports

Without names, all notebooks of this folder. A run stops at the first cell that fails, and the exit status is 1 if any
did. A cell fails when its program does, and also when a shell line (!), a %%bash cell or a special command (%) in it
does, which Jupyter itself does not see. What a cell's metadata may ask for:

  "tags": ["allow-error"] with "expect_error": "text"   the cell must fail, and say this text
  "expect_output": "text" or ["text", ...]              each must be in what the cell prints
                                                        ("image/png": a picture)

--save writes the outputs into the notebooks, --out into copies in that folder. --check looks at outputs as they are
committed: every cell executed once and in order, the two kinds of metadata above kept, no path of a home or temporary
folder, no time stamp, no progress bar, no token of a hub; every picture has a text that stands for it, and no line of
code is wider than a laptop's screen shows. --imports prints the packages that cells import from other
modules, for the set-up to compile beforehand.

The script scripts/workbook calls this with the Python and the environment of the set-up.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
MODULE = "github.com/kvqbook/kvqbook"

# What GoNB writes on standard error where a shell line or a special command failed. The cell itself goes on.
SOFT_ERROR = re.compile(r'^(exit status \d+|signal: \w.*|exec: .*|fork/exec .*|GoNB Error:|"%.*" unknown or not implemented yet\.)', re.M)

# What the kernel says of its language, with the toolchain of go.mod. JupyterLab writes all of it into a notebook that it
# opens: as it is committed, opening changes nothing.
LANGUAGE = {"codemirror_mode": "", "file_extension": ".go", "mimetype": "text/x-go", "name": "go", "nbconvert_exporter": "",
            "pygments_lexer": "", "version": os.environ.get("GOTOOLCHAIN", "")}


def text_of(outputs):
    """All that a cell shows as text, with colours removed and errors included."""
    parts = []
    for out in outputs:
        if out["output_type"] == "stream":
            parts.append(joined(out["text"]))
        elif out["output_type"] == "error":
            parts += [out.get("ename", ""), out.get("evalue", ""), *out.get("traceback", [])]
        else:
            # An image is text too as far as its kind goes, so that "expect_output" can want one.
            parts += [mime if mime.startswith("image/") else joined(v) for mime, v in out.get("data", {}).items() if isinstance(v, (str, list))]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts))


def joined(text):
    """Notebook files may hold a text as a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def failure_of(cell):
    """Why the cell's outputs mean that it failed, or None."""
    for out in cell["outputs"]:
        if out["output_type"] == "error":
            return text_of([out]).strip() or "the program failed"
        if out["output_type"] == "stream" and out["name"] == "stderr" and SOFT_ERROR.search(joined(out["text"])):
            return "a shell line or special command failed:\n" + joined(out["text"]).strip()
    return None


def verdict(cell):
    """None for a cell that did what it should, else what is wrong with it."""
    meta = cell["metadata"]
    failure = failure_of(cell)
    shown = text_of(cell["outputs"])
    if "allow-error" in meta.get("tags", []):
        expected = meta.get("expect_error")
        if not expected:
            return 'the tag "allow-error" wants "expect_error" beside it in the metadata: the text of the error'
        if failure is None:
            return f"wanted the error {expected!r}, came none"
        if expected not in shown:
            return f"wanted the error {expected!r}, came: {failure}"
    elif "expect_error" in meta:
        return '"expect_error" wants the tag "allow-error" beside it'
    elif failure is not None:
        return failure
    wanted = meta.get("expect_output", [])
    for text in [wanted] if isinstance(wanted, str) else wanted:
        if text not in shown:
            return f"wanted the output {text!r}, came: {shown.strip() or 'nothing'}"
    return None


def first_line(cell):
    """The line that names a cell in the report of progress: its first that is no import and no mark of a main."""
    source = re.sub(r"^import\s+(\([^)]*\)|.*)$", "", joined(cell["source"]), flags=re.M)
    lines = [line.strip() for line in source.splitlines() if line.strip() and line.strip() != "%%"]
    line = lines[0] if lines else "import"
    return line if len(line) <= 72 else line[:71] + "…"


def code_cells(nb):
    return [(i, c) for i, c in enumerate(nb["cells"]) if c["cell_type"] == "code" and joined(c["source"]).strip()]


def execute(path, args):
    """Runs one notebook; returns whether all of its cells did what they should."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    os.environ["KVQ_BROWSER"] = "none"  # for cells that would wait for one

    nb = nbformat.read(path, as_version=4)
    cells = code_cells(nb)
    print(f"{path.name}: {len(cells)} cells", flush=True)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    client = NotebookClient(
        nb,
        timeout=args.timeout,
        startup_timeout=120,
        kernel_name="gonb",
        allow_errors=True,  # judged here
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    start = time.monotonic()
    wrong = None
    group = None
    kernels = guard()
    try:
        # In the kernel's process, which is a group of its own by then, before there is a kernel.
        with client.setup_kernel(cleanup_kc=True, preexec_fn=lambda: os.write(kernels, b"%d\n" % os.getpid())):
            group = getattr(client.km.provisioner, "pgid", None)
            for n, (index, cell) in enumerate(cells, 1):
                print(f"  {n:3}/{len(cells)}  {first_line(cell)}", end="", flush=True)
                began = time.monotonic()
                try:
                    client.execute_cell(cell, index, execution_count=n)
                    wrong = verdict(cell)
                except CellTimeoutError:
                    wrong = f"not finished after {args.timeout} s"
                except DeadKernelError:
                    wrong = "the kernel died"
                print(f"  {time.monotonic() - began:.1f} s", flush=True)
                if wrong:
                    break
            if not wrong:
                nb.metadata.language_info = dict(LANGUAGE)
    finally:
        end_group(group)
        with contextlib.suppress(BrokenPipeError):  # the guard was ended by somebody
            os.write(kernels, b"done\n")
        os.close(kernels)
    tidy(nb)
    seconds = time.monotonic() - start
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write(nb, args.out / path.name)
    if wrong:
        print(f"FAIL {path.name}, cell {n} ({first_line(cell)}): {wrong}", file=sys.stderr, flush=True)
    else:
        print(f"ok   {path.name}  {seconds:.1f} s", flush=True)
        if args.save:
            write(nb, path)
    return not wrong


def guard():
    """Starts a process that ends the kernel when this one was killed, which cannot do it by itself any more.

    Returns a file descriptor, to which the kernel's process group is written, and "done" when there is none any more.
    """
    read, to = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(read)
        return to
    try:
        os.setsid()  # what a terminal sends to this program is not for the guard
        os.close(to)
        for fd in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)  # who reads what this program says does not wait for the guard
        said = b""
        while part := os.read(read, 1000):
            said += part
        if not said.endswith(b"done\n"):
            for group in said.split():
                end_group(int(group))
    finally:
        os._exit(0)


def end_group(group):
    """Ends what the kernel may have left running: its process group is its own."""
    if group:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def tidy(nb):
    """Takes out of the outputs what belongs to one run on one machine."""
    nb.metadata.pop("widgets", None)
    replace = [
        # GoNB adds the cell and line to a stack trace only where the whole line reaches it at once; they are in the HTML too.
        (re.compile(r" ?\x1b\[7m\[\[ Cell \[\d+\] Line \d+ \]\]\x1b\[0m "), ""),
        (re.compile(r"/tmp/gonb_[0-9a-f]+"), "$GONB_TMP_DIR"),
    ]
    for value, name in ((os.environ.get("KVQ_ROOT"), "$KVQ_ROOT"), (os.environ.get("HOME"), "~")):
        if value and value != "/":
            replace.append((re.compile(re.escape(value) + r"(?=/|\b)"), name))

    def clean(value):
        if isinstance(value, str):
            for pattern, name in replace:
                value = pattern.sub(lambda _: name, value)
            return value
        if isinstance(value, list):
            return [clean(v) for v in value]
        if isinstance(value, dict):
            return type(value)({k: v if k.startswith("image/") else clean(v) for k, v in value.items()})
        return value

    for cell in nb.cells:
        if cell.cell_type == "code":
            # A line of progress that was taken away leaves an output with nothing in it.
            kept = [out for out in cell.outputs if out.get("data") != {"text/html": ""}]
            for out in kept:
                if out["output_type"] == "stream":
                    out["text"] = WAITING.sub("", joined(out["text"]))
            cell.outputs = [type(out)(clean(dict(out))) for out in kept if out.get("text") != ""]


def write(nb, path):
    """Writes the notebook at once, so that an interruption leaves the old one."""
    import nbformat

    part = path.with_suffix(".part")
    nbformat.write(nb, part)
    os.replace(part, path)


# Lines that nb/ask prints so that a wait is not silent.
WAITING = re.compile(r"^(?:… \d+ s|\[(?:kvq serve is |the text is coming).*\])\n", re.M)


# What must not be in a committed notebook, in sources and outputs alike or in outputs alone.
ANYWHERE = [
    ("a token of a hub", re.compile(r"\bhf_[A-Za-z0-9]{8,}")),
    ("a path of a home folder", re.compile(r"(?<![\w.])/(?:root|home/[\w.-]+|Users/[\w.-]+)(?=/|\b)")),
]
OUTPUTS = [
    ("a path of a temporary folder", re.compile(r"(?<![\w.])/(?:tmp|var/tmp|var/folders)/\S+")),
    ("a time stamp", re.compile(r"\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d|\b[IWEF]\d{4} \d\d:\d\d:\d\d")),
    ("a progress bar", re.compile(r"\r(?!\n)|\x1b\[[0-9;]*[A-KST]|\d+\s?%\s?[|\[]|[█━─=#>]{3,}.*\d+\s?%")),
]


# Columns of code that JupyterLab shows beside its file browser on a laptop, with a tab as 4.
CODE_WIDTH = 88


def check(path):
    """Says what is wrong with a notebook as it is committed; returns whether nothing is."""
    problems = []
    nb = json.loads(path.read_text(encoding="utf-8"))
    if nb["metadata"].get("kernelspec", {}).get("name") != "gonb":
        problems.append('wanted the kernel "gonb" in the metadata')
    cells = code_cells(nb)
    if not any(cell["outputs"] for _, cell in cells):
        problems.append("no cell has an output; execute it with: ./scripts/workbook run --save")
    for n, (_, cell) in enumerate(cells, 1):
        where = f"cell {n} ({first_line(cell)})"
        if cell["execution_count"] != n:
            problems.append(f"{where}: executed as number {cell['execution_count']}; wanted all cells in order, in one run")
        wrong = verdict(cell)
        if wrong:
            problems.append(f"{where}: {wrong}")
        for line in joined(cell["source"]).splitlines():
            if len(line.expandtabs(4)) > CODE_WIDTH:
                problems.append(f"{where}: a line of code has {len(line.expandtabs(4))} columns, wanted at most {CODE_WIDTH}: {line.strip()}")
        for out in cell["outputs"]:
            if "image/png" in out.get("data", {}) and not out["metadata"].get("image/png", {}).get("alt"):
                problems.append(f"{where}: a picture has no text that stands for it (alt)")
        if "execution" in cell["metadata"]:
            problems.append(f"{where}: holds the times at which it was executed")
        for what, pattern in OUTPUTS + ANYWHERE:
            if found := pattern.search(text_of(cell["outputs"])):
                problems.append(f"{where}: its output holds {what}: {found.group()!r}")
    for n, cell in enumerate(nb["cells"], 1):
        for what, pattern in ANYWHERE:
            if found := pattern.search(joined(cell["source"])):
                problems.append(f"{n}. of all cells: its source holds {what}: {found.group()!r}")
    for problem in problems:
        print(f"FAIL {path.name}: {problem}", file=sys.stderr)
    if not problems:
        print(f"ok   {path.name}: {len(cells)} cells, committed as executed")
    return not problems


def imports(paths):
    """The packages of other modules that the cells import, sorted."""
    found = set()
    for path in paths:
        for _, cell in code_cells(json.loads(path.read_text(encoding="utf-8"))):
            source = joined(cell["source"])
            if source.startswith("%%") and not source.startswith("%%\n"):
                continue  # a cell of another language
            for block in re.findall(r"^import\s+(\([^)]*\)|.*)$", source, re.M):
                found.update(re.findall(r'"([\w.-]+\.[\w-]+/[^"\s]+)"', block))
    return sorted(p for p in found if p != MODULE and not p.startswith(MODULE + "/"))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0], description=__doc__.split("\n\n", 2)[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    mode.add_argument("--imports", action="store_true", help=argparse.SUPPRESS)
    mode.add_argument("--save", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--timeout", type=int, default=600, metavar="SECONDS", help="for one cell (600)")
    parser.add_argument("notebooks", nargs="*", type=pathlib.Path, metavar="NOTEBOOK", help="(all of this folder)")
    args = parser.parse_args()
    paths = [p.resolve() for p in args.notebooks] or sorted(HERE.glob("*.ipynb"))
    for path in paths:
        if not path.is_file():
            parser.error(f"wanted a notebook, nothing is at {path}")
    if args.imports:
        for name in imports(paths):
            print(name)
        return 0
    # Both end the kernel on the way out, also where the shell that started this has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    done = []
    try:
        for path in paths:
            done.append(check(path) if args.check else execute(path, args))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    failed = done.count(False)
    print(f"notebooks: {len(done) - failed} {'as they should be' if args.check else 'executed'}, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
