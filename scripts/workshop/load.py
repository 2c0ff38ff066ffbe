"""Plays a workshop: users of a JupyterHub on loopback who all run a notebook at once.

usage: load [--users N] [--notebook FILE] [--exercises N] [--seconds S] [--keep]

Starts scripts/workshop/hub for itself, logs N (10) users in by its login page, each a user of this machine with an empty
home, starts their servers, and has all of them run the notebook (the first) at once by the hub's API and their kernels'
channels. The first N (3) of them get the answers of notebooks/solutions in their exercises, which then have to say
"right". It prints the time to the first new token of the first generating cell, the memory of each user's processes, and
what failed; it ends what it started, and removes the users unless --keep. Exit status 1 if a cell failed or a process
was left. --seconds ends a run that takes longer (900).
"""

import argparse
import asyncio
import json
import os
import pathlib
import pwd
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

ROOT = pathlib.Path(os.environ["KVQ_ROOT"])
sys.path.insert(0, str(ROOT / "notebooks"))
import run as runner  # noqa: E402, what a failed cell is

URL = "http://127.0.0.1:18800"
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


class User:
    def __init__(self, name, token):
        self.name, self.token = name, token
        self.first = None  # seconds to the first new token
        self.failed = []
        self.ready = self.took = self.peak = 0
        self.done = 0

    async def ask(self, path, method="GET", body=None, headers=None, **more):
        headers = {"Authorization": f"token {self.token}", **(headers or {})}
        data = None if method in ("GET", "DELETE") else (body if isinstance(body, str) else json.dumps(body or {}))
        return await AsyncHTTPClient().fetch(HTTPRequest(URL + path, method=method, body=data, headers=headers, request_timeout=240, **more))

    async def log_in(self, password):
        """By the page, as a participant does."""
        page = await AsyncHTTPClient().fetch(HTTPRequest(URL + "/hub/login", request_timeout=120))
        cookies = "; ".join(c.split(";")[0] for c in page.headers.get_list("Set-Cookie"))
        xsrf = re.search(r"_xsrf=([^;]+)", cookies)[1]
        form = urllib.parse.urlencode({"username": self.name, "password": password, "_xsrf": xsrf})
        try:
            await self.ask("/hub/login", "POST", form, {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded", "Authorization": ""},
                           follow_redirects=False)
        except HTTPClientError as error:
            if error.code != 302 or "jupyterhub-session-id" not in str(error.response.headers.get_list("Set-Cookie")) + cookies:
                raise

    async def start(self):
        begin = time.monotonic()
        await self.ask(f"/hub/api/users/{self.name}/server", "POST")
        while True:
            user = json.loads((await self.ask(f"/hub/api/users/{self.name}")).body)
            server = user["servers"].get("", {})
            if server.get("ready"):
                break
            if not server.get("pending") or time.monotonic() - begin > 240:
                raise RuntimeError(f"{self.name}: the server did not start")
            await asyncio.sleep(0.5)
        self.ready = time.monotonic() - begin

    async def run(self, cells):
        begin = time.monotonic()
        base = f"/user/{self.name}/api"
        listed = json.loads((await self.ask(f"{base}/contents/my-notebooks")).body)
        if not any(f["name"].endswith(".ipynb") for f in listed["content"]):
            self.failed.append("no copies of the notebooks")
        kernel = json.loads((await self.ask(f"{base}/kernels", "POST", {"name": "gonb", "path": "my-notebooks"})).body)["id"]
        socket = await websocket_connect(HTTPRequest(URL.replace("http", "ws") + f"{base}/kernels/{kernel}/channels",
                                                     headers={"Authorization": f"token {self.token}"}))
        try:
            for n, cell in enumerate(cells, 1):
                await self.cell(socket, n, cell)
                self.done = n
        finally:
            socket.close()
        self.took = time.monotonic() - begin

    async def cell(self, socket, n, cell):
        ident = uuid.uuid4().hex
        begin = time.monotonic()
        await socket.write_message(json.dumps({
            "header": {"msg_id": ident, "username": self.name, "session": ident, "msg_type": "execute_request", "version": "5.3"},
            "parent_header": {}, "metadata": {}, "buffers": [], "channel": "shell",
            "content": {"code": cell["source"], "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False},
        }))
        outputs, idle, replied = [], False, False
        generating = self.first is None and any(line.startswith(GENERATES) for line in cell["source"].splitlines())
        while not (idle and replied):
            message = await socket.read_message()
            if message is None:
                raise RuntimeError(f"{self.name}: cell {n}: the kernel's channel was closed")
            message = json.loads(message)
            if message["parent_header"].get("msg_id") != ident:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status":
                idle = content["execution_state"] == "idle"
            elif kind == "execute_reply":
                replied = True
            elif kind in ("stream", "error", "display_data", "execute_result", "update_display_data"):
                output = {"output_type": "display_data" if kind == "update_display_data" else kind, "metadata": {}, **content}
                outputs.append(output)
                # a prompt is shown as it is, new tokens are bold
                if generating and self.first is None and "<b>" in runner.text_of([output]):
                    self.first = time.monotonic() - begin
        wrong = runner.verdict({**cell, "outputs": outputs})
        if wrong:
            self.failed.append(f"cell {n} ({runner.first_line(cell)}): {wrong}")


def memory(names):
    """MiB of each user's processes: shared pages are shared out (Pss)."""
    of = {pwd.getpwnam(name).pw_uid: name for name in names}
    sums = dict.fromkeys(names, 0.0)
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = of.get(process.stat().st_uid)
            if name:
                sums[name] += int(re.search(r"^Pss:\s+(\d+)", (process / "smaps_rollup").read_text(), re.M)[1]) / 1024
        except (OSError, TypeError):
            continue
    return sums


def processes(names):
    uids = {pwd.getpwnam(name).pw_uid for name in names}
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid in uids and ") Z " not in (process / "stat").read_text():
                found.append((process / "cmdline").read_text().replace("\0", " ")[:100])
        except OSError:
            continue
    return found


async def watch(users, stop):
    said = time.monotonic()
    while not stop.is_set():
        for name, mib in memory([u.name for u in users]).items():
            user = next(u for u in users if u.name == name)
            user.peak = max(user.peak, mib)
        if time.monotonic() - said > 20:
            said = time.monotonic()
            print(f"  cells run: {' '.join(str(u.done) for u in users)}", flush=True)
        try:
            await asyncio.wait_for(stop.wait(), 5)
        except asyncio.TimeoutError:
            pass


def figures(label, values, unit):
    known = [v for v in values if v]
    if known:
        of = "" if len(known) == len(values) else f" ({len(known)} of {len(values)} users)"
        print(f"{label}: median {statistics.median(known):.1f} {unit}, worst {max(known):.1f} {unit}{of}", flush=True)


async def play(args, users, password):
    begin = time.monotonic()
    while True:
        try:
            await AsyncHTTPClient().fetch(URL + "/hub/health")
            break
        except OSError:
            if time.monotonic() - begin > 60:
                raise
            await asyncio.sleep(0.5)
        except HTTPClientError:
            await asyncio.sleep(0.5)
    print(f"the hub answers after {time.monotonic() - begin:.1f} s", flush=True)
    await asyncio.gather(*(u.log_in(password) for u in users))
    print(f"{len(users)} users logged in", flush=True)
    await asyncio.gather(*(u.start() for u in users))
    figures("a server starts", [u.ready for u in users], "s")
    stop = asyncio.Event()
    watching = asyncio.create_task(watch(users, stop))
    runs = [u.run(cells_of(args.notebook, i < args.exercises)) for i, u in enumerate(users)]
    for user, result in zip(users, await asyncio.gather(*(asyncio.wait_for(r, args.seconds) for r in runs), return_exceptions=True)):
        if isinstance(result, BaseException):
            user.failed.append(f"after cell {user.done}: {type(result).__name__} {result}")
    for user in users:
        if user.first is None:
            user.failed.append("no new token was seen in a generating cell")
    stop.set()
    await watching
    figures("to the first new token", [u.first for u in users], "s")
    figures("the notebook", [u.took for u in users], "s")
    figures("memory of a user, at most", [u.peak for u in users], "MiB")
    # a server that was ended has ended its kernels
    await asyncio.gather(*(u.ask(f"/hub/api/users/{u.name}/server", "DELETE") for u in users), return_exceptions=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0])
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--notebook", type=pathlib.Path, default=ROOT / "notebooks" / "01-kv-cache-quantization.ipynb")
    parser.add_argument("--exercises", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which cleans up, as Ctrl-C does
    state = pathlib.Path(tempfile.mkdtemp(prefix="kvq-hub-"))
    names = [f"kvq-load-{i + 1}" for i in range(args.users)]
    for name in names:  # an account of an earlier run that was killed has a home that is not empty
        subprocess.run(["userdel", "--remove", name], capture_output=True)
    token = secrets.token_hex(32)
    env = {**os.environ, "KVQ_HUB_STATE": str(state), "KVQ_HUB_URL": URL, "KVQ_HUB_LOAD_TOKEN": token}
    log = open(state / "log", "w")
    hub = subprocess.Popen([str(ROOT / "scripts/workshop/hub"), "--JupyterHub.hub_port=18801", "--ConfigurableHTTPProxy.api_url=http://127.0.0.1:18802"],
                           env=env, stdout=log, stderr=log, start_new_session=True)
    users = [User(name, token) for name in names]
    left, status = [], 1
    try:
        while not (state / "password").exists() or not (state / "password").read_text():
            time.sleep(0.1)
            if hub.poll() is not None:
                raise RuntimeError("the hub ended: " + (state / "log").read_text()[-2000:])
        asyncio.run(play(args, users, (state / "password").read_text().strip()))
        end = time.monotonic() + 30
        while (left := processes(names)) and time.monotonic() < end:
            time.sleep(0.5)
        failures = [f"{u.name}: {f}" for u in users for f in u.failed] + [f"left after the servers: {p}" for p in left]
        print(f"failures: {len(failures) or 'none'}")
        for failure in failures:
            print(" ", failure[:500])
        status = 1 if failures else 0
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}\n" + (state / "log").read_text()[-3000:])
    finally:
        hub.send_signal(signal.SIGTERM)
        try:
            hub.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(hub.pid, signal.SIGKILL)
        if status and args.keep:
            print(f"the hub's log: {state}/log")
        else:
            shutil.rmtree(state, ignore_errors=True)
        if not args.keep:
            for name in names:
                subprocess.run(["pkill", "-KILL", "-u", name], capture_output=True)
                subprocess.run(["userdel", "--remove", name], capture_output=True)
            # the group is the hub's own; an empty one is removed
            subprocess.run(["groupdel", "kvq-workshop"], capture_output=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
