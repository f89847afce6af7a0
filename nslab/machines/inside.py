"""The first process of a kernel of one's own, its init: it furnishes the machine, runs one command, and carries its bytes.

It is root there. The machine's files come from hostfs, read-only, below an overlay whose upper layer is a tmpfs: so each
start is clean, and what is written is gone at the end, but for the folders that were asked for. It talks with the world
outside over the serial line /dev/ttyS0, in lines of JSON (see ``nslab.machines.words``).

This module runs as a program of its own, in that kernel only: elsewhere its calls would be refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import struct
import termios
import tty
from pathlib import Path
from typing import IO, Any, NoReturn

from nslab import syscalls
from nslab.errors import SyscallError
from nslab.machines import words

LINE = "/dev/ttyS0"
NEW_ROOT = "/proc/root"  # where the root is made: on a tmpfs over /proc, a folder that every machine has
MODULES = (
    "veth", "bridge", "8021q", "dummy", "macvlan", "ipvlan", "tun", "sch_netem", "sch_tbf", "sch_htb", "nf_tables",
    "nft_chain_nat", "nft_masq", "nft_ct",
)  # fmt: skip
PARAMETERS = {"dummy": "numdummies=0"}  # it would make an interface by itself
MOUNTS = (
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("mqueue", "/dev/mqueue", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
)


def main(folder: str) -> NoReturn:
    """Do what the plan in ``folder`` says, and end this kernel."""
    syscalls.allow()
    line = words.Line(os.fdopen(os.open(LINE, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0))
    try:
        tty.setraw(line.fileno())
        plan = words.read(Path(folder, words.PLAN))
        modules = furnish(plan, line)
        command = Command(plan, line)
        modules.load_aside()
        command.run()
    except BaseException as error:
        line.send(failed=f"{type(error).__name__}: {error}")
    os.sync()
    syscalls.reboot(syscalls.LINUX_REBOOT_CMD_POWER_OFF)
    os._exit(0)


# -- the machine ------------------------------------------------------------------------------------------------------


def furnish(plan: dict[str, Any], line: words.Line) -> Modules:
    """Files, modules, names and the network; those modules are returned that can wait."""
    modules = Modules(plan["modules"])
    modules.load("overlay")
    line.send(progress="files")
    _root(plan)
    modules.link()
    if plan["modules_first"] or not any(os.access(f"{folder}/modprobe", os.X_OK) for folder in ("/sbin", "/usr/sbin")):
        modules.load(*MODULES)
    else:
        modules.later = MODULES
    line.send(progress="network")
    syscalls.sethostname(os.fsencode(plan["hostname"]))
    syscalls.set_interface_flags("lo", syscalls.IFF_UP)
    if plan["network"]:
        _network(**plan["network"])
        line.send(connected=True)
    return modules


def _root(plan: dict[str, Any]) -> None:
    """The root: an overlay of the machine's, the filesystems of a kernel, and what is to be seen as it is."""
    syscalls.mount("tmpfs", "/proc", "tmpfs", 0, "mode=755")
    for name in ("upper", "work", "root"):
        os.mkdir(f"/proc/{name}")
    syscalls.mount("overlay", NEW_ROOT, "overlay", 0, "lowerdir=/,upperdir=/proc/upper,workdir=/proc/work")
    for fstype, at, data in MOUNTS:
        os.makedirs(NEW_ROOT + at, exist_ok=True)
        syscalls.mount(fstype, NEW_ROOT + at, fstype, 0, data or None)
    for read_only, folders in ((True, plan["covered"]), (False, plan["write"])):
        for path in folders:
            os.makedirs(NEW_ROOT + path, exist_ok=True)
            syscalls.mount("none", NEW_ROOT + path, "hostfs", syscalls.MOUNT_FLAGS["MS_RDONLY"] if read_only else 0, path)
    os.chdir(NEW_ROOT)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", 2)  # MNT_DETACH: the overlay holds what it needs
    syscalls.chroot(".")
    os.chdir("/")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        with contextlib.suppress(FileExistsError):
            os.symlink(f"/proc/self/{target}", f"/dev/{name}")
    for path, text in plan["files"].items():
        _write(Path(path), text)


def _write(path: Path, text: str) -> None:
    """A file of this machine's own, for its root alone; not through a symlink, which may lead where nothing is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text)


class Modules:
    """The kernel's modules, below a folder of the machine."""

    def __init__(self, folder: str):
        self.folder = folder
        self.later: tuple[str, ...] = ()
        self._needs: dict[str, list[str]] = {}  # by name: its file, and those of what it needs
        with contextlib.suppress(OSError):
            for text in Path(folder, "modules.dep").read_text().splitlines():
                path, _, needs = text.partition(":")
                self._needs[os.path.basename(path).partition(".")[0].replace("-", "_")] = [path, *needs.split()]

    def link(self) -> None:
        """Put them where modprobe(8) looks, which loads others when the kernel asks for them."""
        if self.folder and not os.path.exists(place := f"/lib/modules/{os.uname().release}"):
            os.makedirs("/lib/modules", exist_ok=True)
            os.symlink(self.folder, place)

    def load(self, *names: str) -> None:
        """Load these with what they need, as far as they are there; what is built in has no file."""
        for name in names:
            for path in reversed(self._needs.get(name.replace("-", "_"), [])):
                with contextlib.suppress(SyscallError), open(f"{self.folder}/{path}", "rb") as file:
                    syscalls.finit_module(file.fileno(), PARAMETERS.get(name, ""))

    def load_aside(self) -> None:
        """Load those that can wait, since modprobe(8) would load each when it is needed, without taking time from others."""
        if self.later and os.fork() == 0:
            os.nice(19)
            self.load(*self.later)
            os._exit(0)


def _network(name: str, address: str, prefix: int, gateway: str, resolver: str) -> None:
    """The one interface, its address and the way out, by the ioctls that need no netlink: netdevice(7)."""
    _write(Path("/etc/resolv.conf"), f"nameserver {resolver}\n")
    os.chmod("/etc/resolv.conf", 0o644)
    # The network learns where the kernel is before it has to ask: it waits a second for an answer, and drops the connection.
    Path(f"/proc/sys/net/ipv4/conf/{name}/arp_notify").write_text("1")
    syscalls.set_interface_address(name, address, prefix)
    syscalls.set_interface_flags(name, syscalls.IFF_UP)
    syscalls.add_default_route(gateway)


# -- the command ------------------------------------------------------------------------------------------------------


class Command:
    """The command of the plan, in a session of its own, and its streams: pipes, or a terminal."""

    def __init__(self, plan: dict[str, Any], line: words.Line):
        self.line = line
        self.streams: dict[str, IO[bytes]] = {}  # ours, by name
        self.pid = 0
        self._pending = b""
        self._start(plan)

    def _start(self, plan: dict[str, Any]) -> None:
        theirs: list[IO[bytes]] = []
        if size := plan["terminal"]:
            master, slave = os.openpty()
            self.streams["out"] = os.fdopen(master, "r+b", buffering=0)
            self.streams["in"] = self.streams["out"]
            theirs = [os.fdopen(slave, "r+b", buffering=0)] * 3
            self._resize(*size)
        else:
            for name in ("in", "out", "err"):
                reads, writes = os.pipe()
                ends = os.fdopen(reads, "rb", buffering=0), os.fdopen(writes, "wb", buffering=0)
                theirs.append(ends[0 if name == "in" else 1])
                self.streams[name] = ends[1 if name == "in" else 0]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                for number, file in enumerate(theirs):
                    os.dup2(file.fileno(), number)
                if plan["terminal"]:
                    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
                os.closerange(3, 1 << 10)
                for number in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)
                with contextlib.suppress(OSError):
                    os.chdir(plan["cwd"])
                os.execvpe(plan["command"][0], plan["command"], plan["env"])
            except OSError as error:
                os.write(2, os.fsencode(f"{plan['command'][0]}: {error.strerror}\n"))
                os._exit(127 if isinstance(error, FileNotFoundError) else 126)
            finally:
                os._exit(126)
        for file in theirs:
            file.close()
        self.line.send(started=self.pid)

    def run(self) -> None:
        """Carry bytes until the command has ended and its output is out, and say its status."""
        woken, wakes = socket.socketpair()
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(self.line, selectors.EVENT_READ, "line")
        selector.register(woken, selectors.EVENT_READ, "child")
        for name in ("out", "err"):
            if name in self.streams:
                selector.register(self.streams[name], selectors.EVENT_READ, name)
        status = None
        while status is None:
            for key, _ in selector.select():
                match key.data:
                    case "child":
                        woken.recv(512)
                    case "line":
                        for message in self.line.receive():
                            self._obey(message)
                    case name:
                        if not self._carry(name):
                            selector.unregister(self.streams[name])
            status = self._reaped()
        for name in ("out", "err"):
            if name in self.streams:
                os.set_blocking(self.streams[name].fileno(), False)
                while self._carry(name):
                    pass
        os.sync()
        self.line.send(ended=status)

    def _carry(self, name: str) -> bool:
        """Pass on what there is; False when that was the last."""
        try:
            data = self.streams[name].read(1 << 14)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        if data:
            self.line.send(**{name: words.text(data)})
        return bool(data)

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"in": ""}:
                if self.streams["in"] is not self.streams["out"]:
                    self.streams["in"].close()
            case {"in": text}:
                with contextlib.suppress(OSError, ValueError):  # it does not read any more
                    self.streams["in"].write(words.data(text))
                self.line.send(taken=len(text))
            case {"signal": number}:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, number)
            case {"size": size}:
                self._resize(*size)
            case {"forget": _}:
                Path("/proc/sys/vm/drop_caches").write_text("2")
                self.line.send(forgotten=True)
            case {"sync": _}:
                os.sync()
                self.line.send(synced=True)

    def _resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.streams["out"].fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _reaped(self) -> int | None:
        """Bury who has ended; the status of the command, once it has."""
        found = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == self.pid:
                    found = os.waitstatus_to_exitcode(status)
        return found
