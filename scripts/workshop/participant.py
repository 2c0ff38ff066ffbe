"""A participant of a workshop: what a browser does, by the hub's page, its API and a kernel's channels."""

import asyncio
import contextlib
import json
import re
import time
import urllib.parse
import uuid

from exercises import generates, runner
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect


class Participant:
    def __init__(self, url, name, token):
        self.url, self.name, self.token = url, name, token
        self.first = None  # seconds to the first new token
        self.failed = []
        self.ready = self.took = self.peak = 0
        self.done = 0

    async def ask(self, path, method="GET", body=None, headers=None, **more):
        headers = {"Authorization": f"token {self.token}", **(headers or {})}
        data = None if method in ("GET", "DELETE") else (body if isinstance(body, str) else json.dumps(body or {}))
        return await AsyncHTTPClient().fetch(HTTPRequest(self.url + path, method=method, body=data, headers=headers, request_timeout=240, **more))

    async def log_in(self, password):
        """By the page, as a participant does."""
        page = await AsyncHTTPClient().fetch(HTTPRequest(self.url + "/hub/login", request_timeout=120))
        cookies = "; ".join(c.split(";")[0] for c in page.headers.get_list("Set-Cookie"))
        xsrf = re.search(r"_xsrf=([^;]+)", cookies)[1]
        form = urllib.parse.urlencode({"username": self.name, "password": password, "_xsrf": xsrf})
        try:
            await self.ask("/hub/login", "POST", form, {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded", "Authorization": ""},
                           follow_redirects=False)
        except HTTPClientError as error:
            if error.code != 302 or "jupyterhub-session-id" not in str(error.response.headers.get_list("Set-Cookie")) + cookies:
                raise

    async def server(self):
        """What the hub says of the participant's server; empty where there is none."""
        return json.loads((await self.ask(f"/hub/api/users/{self.name}")).body)["servers"].get("", {})

    async def start(self):
        begin = time.monotonic()
        await self.ask(f"/hub/api/users/{self.name}/server", "POST")
        while not (server := await self.server()).get("ready"):
            if not server.get("pending") or time.monotonic() - begin > 240:
                raise RuntimeError(f"{self.name}: the server did not start")
            await asyncio.sleep(0.5)
        self.ready = time.monotonic() - begin

    @contextlib.asynccontextmanager
    async def kernel(self):
        """Starts a kernel; its id, and its channels."""
        base = f"/user/{self.name}/api/kernels"
        kernel = json.loads((await self.ask(base, "POST", {"name": "gonb", "path": "my-notebooks"})).body)["id"]
        socket = await websocket_connect(HTTPRequest(self.url.replace("http", "ws") + f"{base}/{kernel}/channels",
                                                     headers={"Authorization": f"token {self.token}"}))
        try:
            yield kernel, socket
        finally:
            socket.close()

    async def interrupt(self, kernel):
        await self.ask(f"/user/{self.name}/api/kernels/{kernel}/interrupt", "POST")

    async def run(self, cells):
        """Runs a notebook from its first cell to its last."""
        begin = time.monotonic()
        listed = json.loads((await self.ask(f"/user/{self.name}/api/contents/my-notebooks")).body)
        if not any(f["name"].endswith(".ipynb") for f in listed["content"]):
            self.failed.append("no copies of the notebooks")
        async with self.kernel() as (_, socket):
            for n, cell in enumerate(cells, 1):
                began = time.monotonic()

                def look(output, cell=cell, began=began):
                    # a prompt is shown as it is, new tokens are bold
                    if self.first is None and generates(cell) and "<b>" in runner.text_of([output]):
                        self.first = time.monotonic() - began

                outputs = await self.execute(socket, cell["source"], look)
                if wrong := runner.verdict({**cell, "outputs": outputs}):
                    self.failed.append(f"cell {n} ({runner.first_line(cell)}): {wrong}")
                self.done = n
        self.took = time.monotonic() - begin

    async def execute(self, socket, source, look=lambda output: None):
        """Runs a cell, and returns its outputs, each of which look is shown as it comes."""
        ident = uuid.uuid4().hex
        await socket.write_message(json.dumps({
            "header": {"msg_id": ident, "username": self.name, "session": ident, "msg_type": "execute_request", "version": "5.3"},
            "parent_header": {}, "metadata": {}, "buffers": [], "channel": "shell",
            "content": {"code": source, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False},
        }))
        outputs, idle, replied = [], False, False
        while not (idle and replied):
            message = await socket.read_message()
            if message is None:
                raise RuntimeError(f"{self.name}: the kernel's channel was closed")
            message = json.loads(message)
            if message["parent_header"].get("msg_id") != ident:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status":
                idle = content["execution_state"] == "idle"
            elif kind == "execute_reply":
                replied = True
            elif kind in ("stream", "error", "display_data", "execute_result", "update_display_data"):
                outputs.append({"output_type": "display_data" if kind == "update_display_data" else kind, "metadata": {}, **content})
                look(outputs[-1])
        return outputs
