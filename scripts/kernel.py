"""Writes GoNB's kernel spec and JupyterLab's settings: kernel.py FOLDER (a share/jupyter).

With a second argument, NAME, it registers the kernel alone, under that name, for other Jupyter programs; with a third,
--remove, it takes it away. A kernel of that name which is not of a clone like this one is left as it is.

The environment is that of scripts/env.sh. GoNB's own installer writes no environment into the spec, and its kernel needs
one: a cell runs goimports and go, with the modules and the toolchain of this clone and no others. All of it is named by
path, so that the kernel runs with any HOME, and for any user who can read what it names. What Go compiles goes into the
build cache of who runs it.
"""

import json
import os
import pathlib
import shutil
import subprocess
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


def modules(root):
    """What tells Go where its modules and its toolchain are, and what others compiled."""
    own = pathlib.Path(root, ".setup", "go")
    if not (own / "mod").is_dir():
        return {"GOMODCACHE": subprocess.run(["go", "env", "GOMODCACHE"], check=True, capture_output=True, text=True).stdout.strip()}, ""
    path = own / "mod" / "golang.org" / f"toolchain@v0.0.1-{os.environ['GOTOOLCHAIN']}.linux-amd64" / "bin"
    return {"GOMODCACHE": str(own / "mod"), "GOCACHEPROG": f"{root}/bin/buildcache {own}/build"}, f"{path}:"


def described(root):
    """What kernel.json says."""
    go, toolchain = modules(root)
    return {
        "argv": [
            f"{root}/bin/kernelhost",  # ends the kernel with its server
            f"{root}/bin/gonb", "--kernel", "{connection_file}",
            # GoNB logs either to the terminal or to files in the temporary folder that stay there.
            "--logtostderr=false", "--log_file=/dev/null", "--stderrthreshold=3",
            # Cells use the packages of this clone, at the versions that its go.mod names.
            f"--go_work={root}",
        ],
        "display_name": "Go (GoNB)",
        "language": "go",
        # GoNB takes a message for the cell's program alone; SIGINT goes to the whole group, also to a go build.
        "interrupt_mode": "signal",
        "env": {
            "PATH": f"{root}/scripts/kernel:{root}/bin:{toolchain}${{PATH}}",
            "KVQ_ROOT": root,
            "GOTOOLCHAIN": os.environ["GOTOOLCHAIN"],
            "GOFLAGS": os.environ["GOFLAGS"] + " -ldflags=-w",  # without what a debugger wants, a cell is linked sooner
            "GOPROXY": "off",  # what a cell needs was fetched by the set-up
            "GOWORK": "",  # the workspace that GoNB makes
            "CGO_ENABLED": "1",
            "GOMLX_NO_AUTO_INSTALL": "1",
            **go,
        },
    }


def main(folder, name="", remove=""):
    root = os.environ["KVQ_ROOT"]
    share = pathlib.Path(folder)
    if name:
        register(share / "kernels" / name, root, remove)
        return
    write(share / "kernels" / "gonb" / "kernel.json", described(root))
    write(share / "lab" / "settings" / "overrides.json", {
        # No pop-up about Jupyter's news, no look-ups of newer versions.
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        # gopls reads the packages at the first Tab, which takes longer than the second that JupyterLab waits.
        "@jupyterlab/completer-extension:manager": {"providerTimeout": 20000},
    })


def register(kernel, root, remove):
    """Puts the kernel where other Jupyter programs look, or takes it away from there."""
    file = kernel / "kernel.json"
    if kernel.exists():
        try:
            of = json.loads(file.read_text())["env"]["KVQ_ROOT"]
        except (OSError, ValueError, KeyError, TypeError):
            sys.exit(f"scripts/workbook: {kernel} is a kernel of something else, and stays; choose another name: --name NAME")
    elif remove:
        print(f"no kernel is at {kernel}")
        return
    if remove:
        shutil.rmtree(kernel)
        print(f"removed {kernel}, which was of {of}")
        return
    write(file, {**described(root), "display_name": "Go (GoNB, kvqbook)"})
    print(f"registered {file}; ./scripts/workbook kernel --remove takes it away")


if __name__ == "__main__":
    main(*sys.argv[1:])
