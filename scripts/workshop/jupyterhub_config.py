"""JupyterHub for a workshop: scripts/workshop/hub starts it, docs/workshop.md explains it.

Each participant is a user of this machine with a home of their own. The clone is read only for them.
"""

import atexit
import contextlib
import grp
import importlib.util
import os
import pathlib
import pwd
import re
import resource
import subprocess
import sys

c = get_config()  # noqa: F821, given by JupyterHub

HERE = pathlib.Path(__file__).resolve().parent
GROUP = "kvq-workshop"
STATE = pathlib.Path(os.environ["KVQ_HUB_STATE"])
MEMORY = float(os.environ.get("KVQ_HUB_MEMORY", 4))  # GiB
CPUS = float(os.environ.get("KVQ_HUB_CPUS", 2))
TASKS = 4096  # processes and threads of a participant
IDLE = int(os.environ.get("KVQ_HUB_IDLE", 3600))  # seconds

c.JupyterHub.bind_url = os.environ.get("KVQ_HUB_URL", "http://127.0.0.1:8000")
c.JupyterHub.db_url = f"sqlite:///{STATE}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(STATE / "proxy.pid")
# The Python package of that name; JupyterHub's own is a Node program.
c.ConfigurableHTTPProxy.command = [sys.executable, "-c", "from configurable_http_proxy.cli import main; main()"]
c.JupyterHub.cleanup_servers = True  # what ends the hub ends the servers; what ends a server ends its kernels

# --- Who may log in.

SHARED = os.environ.get("KVQ_HUB_AUTH") != "pam"
if SHARED:
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = (STATE / "password").read_text().strip()
    # A name of an account. The machine's own accounts are kept out in account().
    c.Authenticator.username_pattern = r"^[a-z][a-z0-9-]{0,30}$"
    c.Authenticator.allow_all = True
else:
    c.JupyterHub.authenticator_class = "pam"
    c.Authenticator.allow_all = True
    c.PAMAuthenticator.admin_groups = set()


def members():
    try:
        return grp.getgrnam(GROUP)
    except KeyError:
        return None


def account(spawner):
    """Makes the participant's account. One that is not of this workshop is nobody's to log in to."""
    name = spawner.user.name
    if not SHARED:
        return
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise ValueError("a name has small letters, digits and dashes")
    group = members()
    if group is None:
        subprocess.run(["groupadd", GROUP], check=True)
        group = members()
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", "--gid", GROUP, "--", name], check=True)
        return
    if user.pw_gid != group.gr_gid or user.pw_uid < 1000:
        raise PermissionError(f"{name} is an account of this machine that is no participant's; choose another name")


c.Spawner.pre_spawn_hook = account

# --- A participant's server, and what it may take.

c.Spawner.cmd = [str(HERE / "single-user")]
c.Spawner.start_timeout = 180  # thirty servers at once, on few processors
c.Spawner.http_timeout = 120
# A kernel that nobody looks at, and that runs nothing, is ended before the server is.
c.Spawner.args = [f"--MappingKernelManager.cull_idle_timeout={IDLE // 2}", f"--MappingKernelManager.cull_interval={min(60, max(1, IDLE // 4))}"]
# Long enough for a server to end its kernels itself.
c.LocalProcessSpawner.interrupt_timeout = 1
c.LocalProcessSpawner.term_timeout = 15

if pathlib.Path("/run/systemd/system").is_dir() and importlib.util.find_spec("systemdspawner"):
    # systemd holds a participant's processes together, in memory and processors.
    c.JupyterHub.spawner_class = "systemdspawner.SystemdSpawner"
    c.SystemdSpawner.mem_limit = f"{MEMORY:g}G"
    c.SystemdSpawner.cpu_limit = CPUS
    c.SystemdSpawner.isolate_tmp = True
    print(f"hub: systemd holds a participant's processes together to {MEMORY:g} GiB and {CPUS:g} processors", file=sys.stderr)
else:
    # Without it control groups do, where this process may make them. Else a limit is one of each process: a cell that
    # asks for more memory fails alone, and processors are shared by the system's scheduler.
    sys.path.insert(0, str(HERE))
    import limits

    groups = limits.Groups.here("kvq-hub")
    together = " and ".join({"memory": f"{MEMORY:g} GiB", "cpu": f"{CPUS:g} processors"}[n] for n in ("memory", "cpu") if groups and n in groups.controllers)
    if groups:
        atexit.register(groups.close)
        print(f"hub: control groups hold a participant's processes together to {together}", file=sys.stderr)
    else:
        print(f"hub: no control group can be made here: {MEMORY:g} GiB are the limit of each process, and processors have none", file=sys.stderr)

    def limit(name):
        """In the participant's first process, still as root."""
        os.nice(5)  # the hub and its proxy answer first
        # Where the whole machine has no memory left, the system ends a participant's process and not the hub.
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/oom_score_adj").write_text("500")
        resource.setrlimit(resource.RLIMIT_NPROC, (TASKS, TASKS))
        if groups:
            groups.enter(name)
        else:
            most = int(MEMORY * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    from jupyterhub.spawner import LocalProcessSpawner

    class Limited(LocalProcessSpawner):
        """Local processes with limits, set before the user's own code runs."""

        def make_preexec_fn(self, name):
            if groups:
                groups.limit(name, int(MEMORY * 2**30), CPUS, TASKS)
            become = super().make_preexec_fn(name)

            def preexec():
                limit(name)
                become()

            return preexec

        async def stop(self, now=False):
            await super().stop(now)
            if groups:
                await groups.end(self.user.name)

    c.JupyterHub.spawner_class = Limited

# --- Servers that nobody uses are ended.

c.JupyterHub.last_activity_interval = min(300, max(1, IDLE // 4))

c.JupyterHub.load_roles = [
    {
        "name": "culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["culler"],
    }
]
c.JupyterHub.services = [
    {"name": "culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={IDLE}", f"--cull-every={min(120, max(1, IDLE // 4))}"]}
]

# --- scripts/workshop/load asks with a token that it made.

if token := os.environ.get("KVQ_HUB_LOAD_TOKEN"):
    c.JupyterHub.services.append({"name": "load", "api_token": token})
    c.JupyterHub.load_roles.append({"name": "load", "scopes": ["admin:users", "admin:servers", "access:servers"], "services": ["load"]})
