"""JupyterHub in the image: two ordinary users at once, each with a notebook in a Linux of their own, and what each sees.

The configuration is the block of docs/hub.md. test() is called outside; main() is what it starts in the image.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.binder import confine
from tests.binder.image import ROOT, Image

# What the image lacks: the proxy in front of a hub, and the accounts.
MORE = """
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends node-configurable-http-proxy
for name in alice bob; do
    useradd --create-home --shell /bin/bash $name
    echo $name >/home/$name/secret
    chmod 700 /home/$name
done
"""
USERS = {"alice": 7077, "bob": 7078}  # the port that each listens on, in the own kernel
URL = "http://127.0.0.1:8000"
DEADLINE = 240  # seconds for anything; two kernels boot on one processor
SERVICE = """
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}
]
c.Spawner.start_timeout = c.Spawner.http_timeout = {deadline}
"""

# In each notebook, after a line W = {...}: leave a process, a file and a port, which the other one looks for then.
LEAVE = """
import socket, subprocess
process = subprocess.Popen(["sleep", W["marks"][W["name"]]])
open("/tmp/of-" + W["name"], "w").close()
listener = socket.create_server(("0.0.0.0", W["listens"]))
"""
LOOK = """
import json, os, socket
from pathlib import Path
def reached(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return True
    except OSError:
        return False
def content(path):
    try:
        return Path(path).read_text()
    except OSError as error:
        return type(error).__name__
processes = list(Path("/proc").glob("[0-9]*/cmdline"))
words = [word for path in processes for word in content(path).split(chr(0))]
print("SEEN" + json.dumps({
    "linux": os.uname().release, "processes": len(processes), "marks": [m for m in W["marks"].values() if m in words],
    "own": content("/home/%s/secret" % W["name"]), "other": content("/home/%s/secret" % W["other"]),
    "tmp": sorted(name for name in os.listdir("/tmp") if name.startswith("of-")),
    "ports": [[host, port] for host in ("127.0.0.1", "10.0.2.2") for port in W["ports"] if reached(host, port)],
}))
"""


def test(image: Image) -> int:
    """Start it all in the image, and say what was found; 0 when nobody sees anything of the other."""
    return confine.start(image, ["python", "-m", "tests.binder.hub"], root=True).wait()


def complaints(seen: dict[str, dict[str, Any]], machine: str) -> Iterator[str]:
    """What is not as it should be, the controls included: what is one's own is there."""
    for name, port in USERS.items():
        facts = seen[name]
        wanted = {
            "marks": [MARKS[name]], "own": f"{name}\n", "other": "PermissionError", "tmp": [f"of-{name}"],
            "ports": [["127.0.0.1", port]],
        }  # fmt: skip
        yield from (f"{name}: {key} is {facts[key]}, not {value}" for key, value in wanted.items() if facts[key] != value)
        if facts["linux"] == machine:
            yield f"{name}: the notebook is on the machine's own Linux"


MARKS = {name: f"{5000 + index}.25" for index, name in enumerate(USERS)}  # arguments of sleep that nobody else has


# -- what runs in the image -------------------------------------------------------------------------------------------


def main() -> int:
    folder = Path(tempfile.mkdtemp())
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "hub.md").read_text(), re.DOTALL)
    assert block, "docs/hub.md has no configuration"
    token = uuid.uuid4().hex
    (folder / "config.py").write_text(block[1] + SERVICE.format(token=token, deadline=DEADLINE))
    with open(folder / "log", "w+") as log:
        hub = subprocess.Popen(["jupyterhub", "-f", "config.py"], cwd=folder, stdout=log, stderr=log)
        try:
            seen = asyncio.run(both(Hub(token)))
        except BaseException:
            log.seek(0)
            print(log.read()[-6000:])
            raise
        finally:
            hub.terminate()
            hub.wait(60)
    for name, facts in seen.items():
        print(f"{name}: {json.dumps(facts)}")
    wrong = list(complaints(seen, os.uname().release))
    print(
        "\n".join(wrong) or "two users at once, each on a Linux of their own: neither sees a process, file or port of the other"
    )
    return int(bool(wrong))


async def both(hub: Hub) -> dict[str, dict[str, Any]]:
    """The servers and notebooks of both, at the same time: first both leave things, then both look."""
    await hub.answers()
    notebooks = dict(zip(USERS, await asyncio.gather(*map(hub.notebook, USERS)), strict=True))
    ports = [*listening(), *USERS.values()]
    words = {
        name: {"name": name, "other": other, "listens": USERS[name], "marks": MARKS, "ports": ports}
        for name, other in zip(USERS, reversed(USERS), strict=True)
    }
    texts: list[str] = []
    for cell in (LEAVE, LOOK):
        texts = await asyncio.gather(*(notebooks[name].run(f"W = {words[name]!r}\n{cell}") for name in USERS))
    return {name: json.loads(text.partition("SEEN")[2]) for name, text in zip(USERS, texts, strict=True)}


def listening() -> list[int]:
    """The TCP ports of the machine's loopback on which something listens: hub, proxy, servers and kernels."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sorted({int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"})


class Hub:
    """The REST interface of JupyterHub, as its administrator's service."""

    def __init__(self, token: str):
        self.headers = {"Authorization": f"token {token}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        from tornado.httpclient import AsyncHTTPClient

        data = json.dumps(body) if body is not None else ("" if method == "POST" else None)
        got = await AsyncHTTPClient().fetch(
            URL + path, method=method, headers=self.headers, body=data, request_timeout=DEADLINE, raise_error=False
        )
        if got.code >= 400:
            raise OSError(f"{method} {path}: {got.code} {got.body.decode(errors='replace')[:500]}")
        return json.loads(got.body or b"null")

    async def until(self, met: Any) -> Any:
        """The first true answer of a coroutine function that is called again and again."""
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    if answer := await met():
                        return answer
                except OSError:
                    pass
                await asyncio.sleep(0.2)  # the hub tells nobody when it is up

    async def answers(self) -> None:
        await self.until(lambda: self.ask("GET", "/hub/api/"))

    async def notebook(self, user: str) -> Notebook:
        """A running kernel of the default kind, on the user's own server."""
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        await self.ask("POST", f"/hub/api/users/{user}/server")

        async def ready() -> Any:
            return (await self.ask("GET", f"/hub/api/users/{user}"))["servers"].get("", {}).get("ready")

        await self.until(ready)
        kernel = await self.ask("POST", f"/user/{user}/api/kernels", {"path": ""})
        address = f"{URL.replace('http', 'ws')}/user/{user}/api/kernels/{kernel['id']}/channels"
        return Notebook(await websocket_connect(HTTPRequest(address, headers=self.headers, request_timeout=DEADLINE)))


class Notebook:
    """A kernel at the other end of a websocket, as JupyterLab has it."""

    def __init__(self, socket: Any):
        self.socket = socket

    async def run(self, code: str) -> str:
        """What a cell printed. OSError with its traceback when it raised."""
        identity = uuid.uuid4().hex
        header = {"msg_id": identity, "msg_type": "execute_request", "username": "", "session": identity, "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        await self.socket.write_message(json.dumps(request))
        text = ""
        async with asyncio.timeout(DEADLINE):
            while True:
                raw = await self.socket.read_message()
                if raw is None:
                    raise OSError("the kernel is gone")
                message = json.loads(raw)
                if message["parent_header"].get("msg_id") != identity:
                    continue
                kind, content = message["msg_type"], message["content"]
                text += content["text"] if kind == "stream" else ""
                if kind == "error":
                    raise OSError("\n".join(content["traceback"]))
                if kind == "status" and content["execution_state"] == "idle":
                    return text


if __name__ == "__main__":
    sys.exit(main())
