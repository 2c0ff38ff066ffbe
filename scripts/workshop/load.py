"""Plays a workshop: users of a JupyterHub on loopback who all run a notebook at once.

usage: load [--users N] [--notebook FILE] [--exercises N] [--seconds S] [--unruly | --cull S] [--keep]

Starts scripts/workshop/hub for itself, logs N (10) users in by its login page, each a user of this machine with an empty
home, starts their servers, and has all of them run the notebook (the first) at once by the hub's API and their kernels'
channels. The first N (3) of them get the answers of notebooks/solutions in their exercises, which then have to say
"right". It prints the time to the first new token of the first generating cell, the memory of each user's processes, and
what failed; it ends what it started, and removes the users unless --keep. Exit status 1 if a cell failed or a process
was left. --seconds ends a run that takes longer (1200).

With --unruly two more users come: a cell of one never ends, a cell of the other takes memory until it is stopped. The
others' cells may not fail, and both kernels have to answer afterwards. With --cull the servers are not ended: the hub has
to end them when nobody has used them for S seconds.
"""

import argparse
import asyncio
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

import unruly
from exercises import ROOT, cells_of
from participant import Participant
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

URL = "http://127.0.0.1:18800"


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


def processes(mine):
    """Processes that are not only waited for, by number, for whose folder in /proc and line in stat mine is true."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text().rpartition(") ")[2].split()
            if stat[0] != "Z" and mine(process, stat):
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")[:100]
        except OSError:
            continue
    return found


def of_users(names):
    uids = {pwd.getpwnam(name).pw_uid for name in names}
    return processes(lambda process, _: process.stat().st_uid in uids)


def of_session(session):
    return processes(lambda _, stat: stat[3] == str(session))


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


async def answers(begin):
    while True:
        try:
            await AsyncHTTPClient().fetch(URL + "/hub/health")
            return
        except OSError:
            if time.monotonic() - begin > 60:
                raise
        except HTTPClientError:
            pass
        await asyncio.sleep(0.5)


async def play(args, users, disturbers, password):
    begin = time.monotonic()
    await answers(begin)
    print(f"the hub answers after {time.monotonic() - begin:.1f} s", flush=True)
    everybody = users + disturbers
    await asyncio.gather(*(u.log_in(password) for u in everybody))
    print(f"{len(everybody)} users logged in", flush=True)
    await asyncio.gather(*(u.start() for u in everybody))
    figures("a server starts", [u.ready for u in everybody], "s")
    stop, finished = asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(watch(users, stop))
    others = [unruly.endless(disturbers[0], finished), unruly.greedy(disturbers[1])] if disturbers else []
    others = [asyncio.create_task(asyncio.wait_for(o, args.seconds + 60)) for o in others]
    runs = [u.run(cells_of(args.notebook, i < args.exercises)) for i, u in enumerate(users)]
    results = await asyncio.gather(*(asyncio.wait_for(r, args.seconds) for r in runs), return_exceptions=True)
    finished.set()
    results += await asyncio.gather(*others, return_exceptions=True)
    for user, result in zip(everybody, results):
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
    if args.cull:
        await culled(args, everybody)
    # a server that was ended has ended its kernels
    await asyncio.gather(*(u.ask(f"/hub/api/users/{u.name}/server", "DELETE") for u in everybody), return_exceptions=True)


async def culled(args, users):
    begin = time.monotonic()
    while there := [u for u in users if await u.server()]:
        if time.monotonic() - begin > 3 * args.cull + 60:
            for user in there:
                user.failed.append(f"the server is still there {time.monotonic() - begin:.0f} s after it was used last")
            return
        await asyncio.sleep(1)
    print(f"servers that nobody uses: all ended by the hub {time.monotonic() - begin:.0f} s later", flush=True)


def remove(names):
    for name in names:
        try:
            for pid in of_users([name]):
                os.kill(pid, signal.SIGKILL)
        except (KeyError, ProcessLookupError):
            pass
        subprocess.run(["userdel", "--remove", name], capture_output=True)


def ended(hub):
    """Ends the hub; what it left."""
    hub.send_signal(signal.SIGTERM)
    try:
        hub.wait(60)
    except subprocess.TimeoutExpired:
        return ["the hub did not end within a minute"]
    end = time.monotonic() + 10
    while (left := of_session(hub.pid)) and time.monotonic() < end:
        time.sleep(0.2)
    return [f"left after the hub: {p}" for p in left.values()]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0])
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--notebook", type=pathlib.Path, default=ROOT / "notebooks" / "01-kv-cache-quantization.ipynb")
    parser.add_argument("--exercises", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1200)
    kind = parser.add_mutually_exclusive_group()  # an endless cell that prints nothing is no use of a server
    kind.add_argument("--unruly", action="store_true")
    kind.add_argument("--cull", type=int, metavar="S")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which cleans up, as Ctrl-C does
    state = pathlib.Path(tempfile.mkdtemp(prefix="kvq-hub-"))
    names = [f"kvq-load-{i + 1}" for i in range(args.users + 2 * args.unruly)]
    remove(names)  # an account of an earlier run that was killed has a home that is not empty
    token = secrets.token_hex(32)
    env = {**os.environ, "KVQ_HUB_STATE": str(state), "KVQ_HUB_URL": URL, "KVQ_HUB_LOAD_TOKEN": token}
    if args.cull:
        env["KVQ_HUB_IDLE"] = str(args.cull)
    log = open(state / "log", "w")
    hub = subprocess.Popen([str(ROOT / "scripts/workshop/hub"), "--JupyterHub.hub_port=18801", "--ConfigurableHTTPProxy.api_url=http://127.0.0.1:18802"],
                           env=env, stdout=log, stderr=log, start_new_session=True)
    everybody = [Participant(URL, name, token) for name in names]
    status = 1
    try:
        while not (state / "password").exists() or not (state / "password").read_text():
            time.sleep(0.1)
            if hub.poll() is not None:
                raise RuntimeError("the hub ended: " + (state / "log").read_text()[-2000:])
        asyncio.run(play(args, everybody[: args.users], everybody[args.users :], (state / "password").read_text().strip()))
        print("".join(re.findall(r"^hub: (?!the password).*\n", (state / "log").read_text(), re.M)), end="")
        end = time.monotonic() + 30
        while (left := of_users(names)) and time.monotonic() < end:
            time.sleep(0.5)
        failures = [f"{u.name}: {f}" for u in everybody for f in u.failed] + [f"left after the servers: {p}" for p in left.values()]
        failures += ended(hub)
        print(f"failures: {len(failures) or 'none'}")
        for failure in failures:
            print(" ", failure[:500])
        status = 1 if failures else 0
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}\n" + (state / "log").read_text()[-3000:])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # asked twice, it still cleans up
        ended(hub)
        for pid in of_session(hub.pid):
            os.kill(pid, signal.SIGKILL)
        if status and args.keep:
            print(f"the hub's log: {state}/log")
        else:
            shutil.rmtree(state, ignore_errors=True)
        if not args.keep:
            remove(names)
            # the group is the hub's own; an empty one is removed
            subprocess.run(["groupdel", "kvq-workshop"], capture_output=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
