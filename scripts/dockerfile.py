"""Prints the steps of a target of a Dockerfile, one a line, those of the images it builds on first: dockerfile.py FILE TARGET."""

import re
import sys


def steps(text):
    """The instructions in order, without comments, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    text = re.sub(r"\\\n\s*", "", text)
    for line in text.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def target(text, wanted):
    stages, name = {}, None
    for what, rest in steps(text):
        if what == "FROM":
            base, _, name = rest.partition(" AS ")
            name = name.strip() or base
            stages[name] = list(stages.get(base, [("FROM", base)]))
        elif name is None:
            raise ValueError(f"{what} before FROM")
        else:
            stages[name].append((what, rest))
    if wanted not in stages:
        raise ValueError(f"wanted one of {', '.join(stages)}, came {wanted!r}")
    return [(what, rest) for what, rest in stages[wanted] if what not in ("ENTRYPOINT", "CMD", "EXPOSE", "LABEL")]


if __name__ == "__main__":
    path, name = sys.argv[1:]
    try:
        for what, rest in target(open(path, encoding="utf-8").read(), name):
            print(what, rest)
    except ValueError as error:
        sys.exit(f"{path}: {error}")
