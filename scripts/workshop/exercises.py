"""The cells of a notebook as a participant runs them, with or without the answers of notebooks/solutions."""

import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ["KVQ_ROOT"])
sys.path.insert(0, str(ROOT / "notebooks"))
import run as runner  # noqa: E402, what a failed cell is

GENERATES = "generate("  # the beginning of a line in the first cell that makes tokens
EXERCISES = {"bitsPerValue": "BitsPerValue", "thereAndBack": "ThereAndBack", "inCodes": "TokensInCodes", "mine": "Mine"}


def answers():
    """The bodies of the functions in notebooks/solutions, by name."""
    text = (ROOT / "notebooks" / "solutions" / "kvcache.go").read_text()
    return {name: body for name, body in re.findall(r"^func (\w+)\([^\n]*\{\n(.*?)^\}$", text, re.M | re.S)}


def cells_of(path, solved):
    bodies = answers()
    cells = []
    for _, cell in runner.code_cells(json.loads(path.read_text(encoding="utf-8"))):
        cell = {**cell, "source": runner.joined(cell["source"])}
        name = re.match(r"func (\w+)\(", cell["source"])
        if solved and name and name[1] in EXERCISES and "// your turn" in cell["source"]:
            head, rest = cell["source"].split("\n", 1)
            cell["source"] = head + "\n" + bodies[EXERCISES[name[1]]] + rest.split("\n", 1)[1]
            cell["metadata"] = {**cell["metadata"], "expect_output": "right"}
        cells.append(cell)
    return cells


def generates(cell):
    return any(line.startswith(GENERATES) for line in cell["source"].splitlines())
