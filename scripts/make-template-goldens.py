#!/usr/bin/env python3
"""Renders chat templates with transformers and keeps what comes out: internal/jinja/testdata/templates.json.gz.

usage: python scripts/make-template-goldens.py [--more FOLDER --write FILE]

Needs   transformers==4.57.6 jinja2==3.1.6 (Python 3.11 or newer), which a virtual environment gets by
        pip install transformers==4.57.6 jinja2==3.1.6

A case is a template, the variables, and the text that transformers' render_jinja_template gives, or the kind of its
error. The constructs and the templates of the model families stand in internal/jinja/testdata: constructs.txt (a
construct between lines of ---), and families/*.jinja, which are written by hand after the published ones; those in
tokenizer/testdata/chat are rendered too. In a construct ⏎, ␍ and ⇥ stand for a line break, a carriage return and a tab.

  --more FOLDER   renders the *.jinja files of a folder instead, such as those of llama.cpp's models/templates
  --write FILE    where to; the tests read it as well where KVQ_TEMPLATES names it
"""

import argparse
import datetime
import gzip
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

PINS = {"transformers": (transformers.__version__, "4.57.6"), "jinja2": (jinja2.__version__, "3.1.6")}
TESTDATA = pathlib.Path(__file__).resolve().parent.parent / "internal" / "jinja" / "testdata"


class Noon(datetime.datetime):
    """The clock of the goldens: the same as in the Go tests."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 12, 0, 0, tzinfo=tz)


USER = {"role": "user", "content": "Hi"}
CONVERSATIONS = {
    "one": [USER],
    "system": [{"role": "system", "content": "Be kind.\n"}, {"role": "user", "content": " Who are you? "}],
    "talk": [
        {"role": "user", "content": "Straße in the <rain> & 'snow'?"},
        {"role": "assistant", "content": "\n<think>\nwell\n</think>\n\nYes, \"often\".  "},
        {"role": "user", "content": "Why?\n\nSay it.\n"},
    ],
    "whole": [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "Sure? 😀"},
        {"role": "assistant", "content": "Aye"},
        {"role": "user", "content": "é"},
    ],
    "answered": [USER, {"role": "assistant", "content": "Hello!"}],
    "twice": [USER, USER],
    "assistant first": [{"role": "assistant", "content": "Hello!"}, USER],
    "strange role": [USER, {"role": "critic", "content": "Bad."}],
    "empty": [{"role": "user", "content": ""}],
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city, today's & <tomorrow's>.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}

# What the constructs find beside the conversation.
VARIABLES = {
    **TOKENS,
    "text": "Hello, World",
    "blank": "  two words \n",
    "lines": "one\ntwo\r\nthree\n\n",
    "umlaut": "äÖß ü",
    "numbers": [3, 1, 2],
    "floats": [0.1, 2.5, -1.0, 1e20],
    "data": {"b": 1, "a": [1, 2.5, None, True], "C": {"x": "y\"<>&'é"}},
    "people": [
        {"name": "Ann", "age": 30, "tags": ["x", "y"], "admin": True},
        {"name": "bob", "age": 25, "tags": [], "admin": False},
        {"name": "Cid", "age": 30, "tags": ["z"], "admin": True},
    ],
    "nothing": None,
    "zero": 0,
    "deep": {"a": {"b": {"c": [1, [2, [3]]]}}},
}


def render(template, messages, prompt, variables):
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=prompt, **variables
        )
    except Exception as e:  # whatever the template does wrong
        return {"error": type(e).__name__, "raised": str(e) if type(e) is jinja2.exceptions.TemplateError else ""}
    return {"result": texts[0]}


def constructs():
    for number, template in enumerate((TESTDATA / "constructs.txt").read_text(encoding="utf-8").split("\n---\n")):
        template = template.replace("⏎", "\n").replace("␍", "\r").replace("⇥", "\t")
        yield {"name": f"construct {number + 1}", "template": template, "conversation": "talk", "prompt": True, "variables": "constructs"}


def families(folder):
    for file in sorted(folder.glob("*.jinja")):
        template = file.read_text(encoding="utf-8")
        for conversation in CONVERSATIONS:
            for prompt in (False, True):
                yield {"name": file.stem, "template": template, "conversation": conversation, "prompt": prompt, "variables": "tokens"}
        yield {"name": file.stem, "template": template, "conversation": "whole", "prompt": True, "variables": "tools"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--more", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path, default=TESTDATA / "templates.json.gz")
    options = parser.parse_args()
    for name, (found, wanted) in PINS.items():
        if found != wanted:
            sys.exit(f"make-template-goldens: {name} {found}, want {wanted}")
    chat_template_utils.datetime = Noon
    variables = {"tokens": TOKENS, "tools": {**TOKENS, "tools": [TOOL]}, "constructs": VARIABLES}
    cases = []
    if options.more:
        cases += families(options.more)
    else:
        cases += constructs()
        cases += families(TESTDATA / "families")
        cases += families(TESTDATA.parent.parent.parent / "tokenizer" / "testdata" / "chat")
    for case in cases:
        case.update(render(case["template"], CONVERSATIONS[case["conversation"]], case["prompt"], variables[case["variables"]]))
    # A template is kept once.
    templates = sorted({case["template"] for case in cases})
    for case in cases:
        case["template"] = templates.index(case["template"])
    document = {"conversations": CONVERSATIONS, "variables": variables, "templates": templates, "cases": cases}
    with open(options.write, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(json.dumps(document, ensure_ascii=False).encode())
    print(f"{len(cases)} cases of {len(templates)} templates, {sum('error' in c for c in cases)} of them errors, in {options.write}")


if __name__ == "__main__":
    main()
