"""Jupyter kernels in a Linux kernel of their own: what jupyter_client asks to start and end them, a kernel provisioner.

The notebook server, or whoever uses jupyter_client, stays where it is. It talks with a Python kernel that runs inside, over
ports on 127.0.0.1 that lead there, with the key of the connection, and encrypted where jupyter_client and the kernel can.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import List, Unicode

from nslab.errors import NslabError
from nslab.machines import needs
from nslab.machines.notebook import PREVIOUSLY
from nslab.machines.own import ADDRESS, OwnKernel

NAME = "nslab-own-kernel"  # the entry point's
PORTS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
CONNECTION = "/run/nslab/connection.json"  # inside
BREAK = "\u23ce"  # between lines where there can be but one
WHAT_NOW = "What to do: start it again. `nslab doctor` and `nslab vm run -- true`, in a terminal, tell more."
EXTENSION = "nslab.machines.notebook"  # of IPython

_ended: dict[str, str] = {}  # by kernel id: what happened to one that ended unasked, until its successor has told


class OwnKernelProvisioner(LocalProvisioner):
    """Starts the kernel of a kernelspec in a Linux kernel of its own, whose root it is."""

    memory = Unicode(needs.MEMORY, config=True, help="How much memory it has, as the kernel's mem= takes it.")
    write = List(Unicode(), config=True, help="More folders that are written to as they are, besides that of the notebook.")

    own: OwnKernel | None = None
    _thread: threading.Thread | None = None

    # -- its life -----------------------------------------------------------------------------------------------------

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        if hasattr(self.parent, "transport_encryption"):  # whoever else is on this machine may connect to 127.0.0.1
            kwargs.setdefault("transport_encryption", _policy(self.parent))
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Boot, and start the command inside; RuntimeError, with the reason, when it could not be started."""
        self.cwd = kwargs.get("cwd") or os.getcwd()
        info = dict(self.connection_info)
        self._streams = {name: _fileno(kwargs.get(f"std{name}"), number) for name, number in (("out", 1), ("err", 2))}
        ports = [(int(info[name]), int(info[name])) for name in PORTS]  # type: ignore[call-overload]
        inside = {**info, "ip": ADDRESS, "key": _text(info.get("key", ""))}
        connection_file = self.parent.connection_file if self.parent else ""
        argv = [CONNECTION if word == connection_file else word for word in cmd]
        env = {**(kwargs.get("env") or os.environ), "JPY_PARENT_PID": "1"}  # init, which it need not watch
        if previously := _ended.pop(self.kernel_id or "", ""):
            env[PREVIOUSLY] = previously
        self.log.info("nslab: booting a kernel of its own for %s", self.kernel_id)
        try:
            self.own = OwnKernel(
                [*argv, f"--ext={EXTENSION}"], cwd=str(self.cwd), env=env, write=[str(self.cwd), *self.write],
                memory=self.memory, ports=ports, files={CONNECTION: json.dumps(inside)}, modules_first=False,
            )  # fmt: skip
            self._thread = threading.Thread(target=self._follow, args=(self.own,), name="nslab-own-kernel", daemon=True)
            await asyncio.to_thread(self.own.wait_up, self._copy)
        except NslabError as error:
            self.own = None
            # Jupyter's server passes on one line; in JupyterLab our extension sets these as lines again.
            raise RuntimeError(f" {BREAK} ".join([*str(error).split("\n"), WHAT_NOW])) from error
        self._thread.start()
        self.pid = self.own.process.pid
        self.log.info("nslab: the kernel of %s is up", self.kernel_id)
        self.connection_info = {**self.connection_info, **dict(zip(PORTS, self.own.ports, strict=True))}  # type: ignore[typeddict-item]
        return self.connection_info

    def _follow(self, own: OwnKernel) -> None:
        """In a thread: hear what it says until it is over, and note what the next one has to tell."""
        while own.over is None:
            own.receive(self._copy)
        own.process.wait()
        if not own.asked:
            _ended[self.kernel_id or ""] = own.explanation()
            self.log.warning("nslab: %s", own.explanation())

    def _copy(self, name: str, data: bytes) -> None:
        """What a kernel writes by itself goes where this process writes, or to the files that were given to start it."""
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._streams[name], data) :]

    @property
    def has_process(self) -> bool:
        return self.own is not None

    async def poll(self) -> int | None:
        """None while it runs, else how it ended."""
        if self.own is None:
            return 0
        over = self.own.over
        return None if over is None else int(over.get("ended", -signal.SIGKILL))

    async def wait(self) -> int | None:
        status = 0
        if self.own is not None:
            while (found := await self.poll()) is None or (self._thread and self._thread.is_alive()):
                await asyncio.sleep(0.02)
            status, self.own = found, None
        return status

    async def send_signal(self, signum: int) -> None:
        """To the process group of the command inside; SIGKILL and SIGTERM end the whole of it."""
        if self.own is None or signum == 0:
            return
        if signum in (signal.SIGKILL, signal.SIGTERM):
            self.own.end("it was told to end")
        else:
            self.own.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The kernel was asked to end by itself: that it does is no accident."""
        if self.own is not None:
            self.own.asked = True

    async def get_provisioner_info(self) -> dict[str, Any]:
        return {**await super().get_provisioner_info(), "pid": self.pid}


def _policy(manager: Any) -> str:
    """Encrypted where it can be, unless whoever runs the server has said something else."""
    import zmq

    said = str(manager.transport_encryption)
    return "auto" if said == "disabled" and zmq.has("curve") else said


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)


def _fileno(file: Any, otherwise: int) -> int:
    return file if isinstance(file, int) else file.fileno() if hasattr(file, "fileno") else otherwise
