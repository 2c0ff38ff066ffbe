"""Writes GoNB's kernel spec and JupyterLab's settings: kernel.py FOLDER (a share/jupyter).

The environment is that of scripts/env.sh. GoNB's own installer writes no environment into the spec, and its kernel needs
one: a cell runs goimports and go, with the modules and the toolchain of this clone and no others.
"""

import json
import os
import pathlib
import sys


def write(path, value):
    """Writes JSON, at once and only where it differs, so that a clone that was moved gets its new paths."""
    text = json.dumps(value, indent=2) + "\n"
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)


def main(folder):
    root = os.environ["KVQ_ROOT"]
    kernel = {
        "argv": [
            f"{root}/bin/gonb", "--kernel", "{connection_file}",
            # GoNB logs either to the terminal or to files in the temporary folder that stay there.
            "--logtostderr=false", "--log_file=/dev/null", "--stderrthreshold=3",
            # Cells use the packages of this clone, at the versions that its go.mod names.
            f"--go_work={root}",
        ],
        "display_name": "Go (GoNB)",
        "language": "go",
        "interrupt_mode": "message",
        "env": {
            "PATH": f"{root}/bin:${{PATH}}",
            "KVQ_ROOT": root,
            "GOTOOLCHAIN": os.environ["GOTOOLCHAIN"],
            "GOFLAGS": os.environ["GOFLAGS"] + " -ldflags=-w",  # without what a debugger wants, a cell is linked sooner
            "GOPROXY": "off",  # what a cell needs was fetched by the set-up
            "GOWORK": "",  # the workspace that GoNB makes
            "CGO_ENABLED": "1",
            "GOMLX_NO_AUTO_INSTALL": "1",
        },
    }
    share = pathlib.Path(folder)
    write(share / "kernels" / "gonb" / "kernel.json", kernel)
    # No pop-up about Jupyter's news, no look-ups of newer versions.
    write(
        share / "lab" / "settings" / "overrides.json",
        {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
