"""Makes the reader's own copies of the notebooks: copies.py NOTEBOOKS FOLDER.

A copy is made where there is none, and renewed where the reader has not changed it. A copy that was changed is never
written to. Where the committed notebook has become another since, a line says so.
"""

import hashlib
import json
import os
import pathlib
import sys

MADE = ".made-from.json"  # in the folder: of each copy, the hash of what it was made from


def hash_of(data):
    return hashlib.sha256(data).hexdigest()


def write(path, data):
    """Writes a file at once, so that an interruption leaves the old one."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def main(notebooks, folder):
    notebooks, folder = pathlib.Path(notebooks), pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    made = {}
    if (folder / MADE).exists():
        made = json.loads((folder / MADE).read_text())
    before = dict(made)
    for committed in sorted(notebooks.glob("*.ipynb")):
        name, data = committed.name, committed.read_bytes()
        copy = folder / name
        if copy.exists():
            mine = hash_of(copy.read_bytes())
            if made.get(name) == hash_of(data) or mine == hash_of(data):
                continue
            if mine != made.get(name):
                print(f"{folder.name}/{name} is yours, and stays; {notebooks.name}/{name} is newer than what it was copied from. "
                      "To have that one too, give yours another name and call this again.")
                continue
        write(copy, data)
        made[name] = hash_of(data)
    if made != before:
        write(folder / MADE, (json.dumps(made, indent=2) + "\n").encode())
    # What notebooks link to beside them. The folder lies where theirs does, so ../docs is what it was.
    solutions = folder / "solutions"
    if not solutions.is_symlink() and not solutions.exists():
        solutions.symlink_to(os.path.relpath(notebooks / "solutions", folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
