"""Limits of what a participant's processes take together, by control groups and without systemd.

A group is a folder below that of this process, one for each participant, in version 2 of control groups or in the
hierarchies of version 1. Only root, or who was given the folder, can make them; in a container they are often read only.
"""

import asyncio
import contextlib
import errno
import os
import pathlib
import signal
import time

WANTED = ("memory", "cpu", "pids")
PERIOD = 100_000  # microseconds over which processors are counted


def hierarchies(proc):
    """The folder of this process in every hierarchy, its version and its controllers: the mounts, and the place in them."""
    places = {}
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            places[name] = path
    for line in (proc / "self/mountinfo").read_text().splitlines():
        fields = line.split()
        root, at, (kind, _, options) = fields[3], fields[4], fields[fields.index("-") + 1 :][:3]
        options = options.split(",")
        name = "" if kind == "cgroup2" else next((n for n in WANTED if n in options), None)
        if kind not in ("cgroup", "cgroup2") or name not in places:
            continue
        own = pathlib.Path(at, os.path.relpath(places[name], root))
        if kind == "cgroup2":
            yield own, 2, (own / "cgroup.controllers").read_text().split()
        else:
            yield own, 1, [n for n in WANTED if n in options]


class Groups:
    """The groups of a hub. Its folders are parts of hierarchies: (folder, version, controllers)."""

    def __init__(self, parts):
        self.parts = parts
        self.controllers = {name for _, _, names in parts for name in names}

    @classmethod
    def here(cls, name, proc=pathlib.Path("/proc")):
        """Makes the folder for the groups of a hub in every hierarchy where that can be done; None where memory has none."""
        parts = []
        for own, version, names in hierarchies(proc):
            names = [n for n in WANTED if n in names]
            try:
                if names:
                    parts.append((prepare(own, version, names, name), version, names))
            except OSError:
                continue  # read only, or not this hub's to divide
        groups = cls(parts)
        return groups if "memory" in groups.controllers else None

    def limit(self, user, memory, cpus, tasks):
        """Makes a participant's group: bytes, processors, processes and threads."""
        for folder, version, names in self.parts:
            group = folder / user
            group.mkdir(exist_ok=True)
            for file, value, needed in files(version, names, memory, cpus, tasks):
                if needed or (group / file).exists():
                    (group / file).write_text(value)

    def enter(self, user):
        """Puts the calling process, and what it will start, into a participant's group."""
        for folder, _, _ in self.parts:
            (folder / user / "cgroup.procs").write_text("0")

    def left(self, user):
        """The processes in a participant's group."""
        found = set()
        for folder, _, _ in self.parts:
            with contextlib.suppress(FileNotFoundError):
                found.update(int(pid) for pid in (folder / user / "cgroup.procs").read_text().split())
        return found

    async def end(self, user, grace=8, seconds=5):
        """Waits until a participant's processes have ended, then ends those that have not, and the group."""
        begin = time.monotonic()
        while pids := self.left(user):
            took = time.monotonic() - begin
            if took > grace + seconds:
                raise RuntimeError(f"{user}: processes {sorted(pids)} do not end")
            for pid in pids if took > grace else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
        for folder, _, _ in self.parts:
            with contextlib.suppress(OSError):  # a next server may have begun in it
                (folder / user).rmdir()

    def close(self):
        """Removes the hub's folders."""
        for folder, _, _ in self.parts:
            with contextlib.suppress(OSError):
                folder.rmdir()


def prepare(own, version, names, name):
    folder = own / name
    folder.mkdir(exist_ok=True)
    if version == 2:
        on = " ".join(f"+{n}" for n in names)
        try:
            (own / "cgroup.subtree_control").write_text(on)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A group that is divided has no processes of its own: this one moves into a part.
            (own / f"{name}-itself").mkdir(exist_ok=True)
            (own / f"{name}-itself" / "cgroup.procs").write_text("0")
            (own / "cgroup.subtree_control").write_text(on)
        (folder / "cgroup.subtree_control").write_text(on)
    if "cpu" in names:
        # Beside others of the machine a group counts as one process, however many are in it: this one holds a room.
        file, value = {1: ("cpu.shares", "10240"), 2: ("cpu.weight", "1000")}[version]
        (folder / file).write_text(value)
    return folder


def files(version, names, memory, cpus, tasks):
    """File, value, and whether it has to be there: swap is not counted everywhere."""
    quota = str(int(cpus * PERIOD))
    table = {
        ("memory", 1): [("memory.limit_in_bytes", str(memory), True), ("memory.memsw.limit_in_bytes", str(memory), False)],
        ("memory", 2): [("memory.max", str(memory), True), ("memory.swap.max", "0", False)],
        ("cpu", 1): [("cpu.cfs_period_us", str(PERIOD), True), ("cpu.cfs_quota_us", quota, True)],
        ("cpu", 2): [("cpu.max", f"{quota} {PERIOD}", True)],
        ("pids", 1): [("pids.max", str(tasks), True)],
        ("pids", 2): [("pids.max", str(tasks), True)],
    }
    return [entry for name in names for entry in table[name, version]]
