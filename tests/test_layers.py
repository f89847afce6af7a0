"""The layering, by walking the syntax trees: imports point down, and what changes the kernel passes one seam."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
import nslab.spawner
from nslab import syscalls
from nslab.model import KINDS

PACKAGE = Path(nslab.__file__).parent

# A room imports from those of the rows above its own, never from its neighbours in a row.
ROWS = (
    ("errors", "model"),
    ("trace", "procfs"),
    ("hints",),
    ("syscalls", "netlink"),
    ("ops",),
    ("spawner",),
    ("ipc",),
    ("namespaces",),
    ("container", "network"),
    ("observe",),
    ("render",),
    ("topology",),
    ("labs",),
    ("widgets",),
    ("lessons", "machines"),
    ("recordings",),
    ("magics", "cli"),
)
ROW = {room: number for number, row in enumerate(ROWS) for room in row}

# Narrower than the rows: all that these rooms may import of nslab.
ONLY = {
    "errors": set(),
    "model": set(),
    "trace": {"errors"},
    "procfs": {"errors", "model"},
    "render": {"errors", "model", "trace"},
}

# Other people's packages, and the only rooms that import them.
GUESTS = {
    "cloudpickle": {"spawner"}, "dpkt": {"network"}, "graphviz": {"render"}, "IPython": {"magics", "widgets"},
    "ipywidgets": {"widgets"}, "jupyter_client": {"lessons", "machines"}, "nbclient": {"lessons"}, "nbformat": {"lessons"},
    "networkx": {"topology"}, "psutil": {"container"}, "rich": {"cli"}, "ruamel": {"topology"}, "traitlets": {"machines"},
    "typer": {"cli"}, "zmq": {"machines"},
    "furo": {"lessons"}, "sphinx": {"lessons"},
}  # fmt: skip

# Programs of their own, in processes that are never a notebook's, and what starts the first of them.
PROGRAMS = {"machines/inside.py", "machines/own.py", "machines/warden.py"}

# Names of the standard library that do what only a system call traced by nslab may do.
CHANGES = {
    "os": {
        "chroot", "setns", "unshare", "setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid",
        "setresgid", "setgroups", "initgroups",
    },
    "socket": {"sethostname"},
}  # fmt: skip
STARTS = {
    "os": {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "spawnv", "spawnl"},
    "pty": {"fork", "spawn"},
}
OPENS = {
    "os": {"open", "dup", "pidfd_open", "pipe", "pipe2", "openpty", "memfd_create", "eventfd"},
    "nsfs": {"ns_get_userns", "ns_get_parent", "open_by_handle_at", "pidfd_getfd", "siocgskns"},
}


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    """(room, file, tree) of each module; the room of nslab/__init__.py is ""."""
    for path in sorted(PACKAGE.rglob("*.py")):
        first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield "" if first == "__init__" else first, path, ast.parse(path.read_text(), str(path))


MODULES = list(modules())


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', '?')}"


def imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every module that is imported, also inside a function: "nslab.ops", "os"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            yield from ((node, f"nslab.{alias.name}" if name == "nslab" else name) for alias in node.names)


def calls(tree: ast.AST, names: dict[str, set[str]]) -> Iterator[ast.Call]:
    """Calls of module.name for the names given by module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module = node.func.value
            if isinstance(module, ast.Name) and node.func.attr in names.get(module.id, ()):
                yield node


@pytest.mark.unit
def test_every_module_is_in_a_room() -> None:
    assert {room for room, _, _ in MODULES} <= {"", *ROW}


@pytest.mark.unit
def test_imports_point_down() -> None:
    wrong = []
    for room, path, tree in MODULES:
        if not room:
            continue
        for node, name in imports(tree):
            parts = name.split(".")
            if parts[0] != "nslab" or name == "nslab.__version__":  # which is text, in no room
                continue
            target = parts[1] if len(parts) > 1 else ""
            allowed = target == room or (target in ONLY[room] if room in ONLY else ROW.get(target, 99) < ROW[room])
            if not allowed:
                wrong.append(f"{where(path, node)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.unit
def test_imports_are_absolute_and_by_name() -> None:
    """No relative import and no import by a computed name, which the test above would not see; three facades are lazy."""
    wrong = []
    for _, path, tree in MODULES:
        wrong += [f"{where(path, node)} imports {name}" for node, name in imports(tree) if name.startswith(".")]
        lazy = path.relative_to(PACKAGE).as_posix() in ("__init__.py", "machines/__init__.py", "spawner/__init__.py")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in ("import_module", "__import__") and not lazy:
                wrong.append(f"{where(path, node)} uses {node.id}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.unit
def test_other_peoples_packages_stay_in_their_rooms() -> None:
    wrong = []
    for room, path, tree in MODULES:
        for node, name in imports(tree):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "nslab" and room not in GUESTS.get(top, ()):
                wrong.append(f"{where(path, node)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.unit
def test_what_changes_the_kernel_passes_syscalls() -> None:
    """Only syscalls/ has ctypes, ioctls of nsfs and the functions of the standard library that change a process's world."""
    wrong = []
    for room, path, tree in MODULES:
        if room == "syscalls":
            continue
        wrong += [f"{where(path, node)} imports {name}" for node, name in imports(tree) if name.split(".")[0] == "ctypes"]
        wrong += [f"{where(path, node)}: {ast.unparse(node.func)}" for node in calls(tree, CHANGES)]
        for node in ast.walk(tree):  # a file that is opened for writing by its path: /proc/PID/uid_map and its like
            match node:
                case ast.Call(func=ast.Name(id="open"), args=[file, mode]) if not isinstance(file, ast.Constant):
                    wrong += [f"{where(path, node)}: {ast.unparse(node)}"] if set("wax+") & set(ast.unparse(mode)) else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.unit
def test_only_the_lower_rooms_start_enter_and_leave() -> None:
    wrong = []
    for room, path, tree in MODULES:
        if room in ("syscalls", "spawner") or path.relative_to(PACKAGE).as_posix() in PROGRAMS:
            continue
        wrong += [f"{where(path, node)}: {ast.unparse(node.func)}" for node in calls(tree, STARTS)]
        if room != "ops":
            names = {"syscalls": {"clone", "clone3", "fork", "unshare", "setns", "posix_spawn"}}
            wrong += [f"{where(path, node)}: {ast.unparse(node.func)}" for node in calls(tree, names)]
        processes = {"subprocess": {"run", "Popen", "call", "check_call", "check_output"}}
        wrong += [f"{where(path, node)}: {ast.unparse(node.func)}" for node in calls(tree, processes)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.unit
def test_above_the_spawner_every_descriptor_is_owned() -> None:
    """A call that returns a descriptor is an argument of Descriptor or os.fdopen, or its names are, a line later."""
    wrong = []
    for room, path, tree in MODULES:
        if ROW.get(room, 0) <= ROW["spawner"]:
            continue
        owned = [
            argument
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Descriptor", "os.fdopen")
            for argument in node.args
        ]
        names = {argument.id for argument in owned if isinstance(argument, ast.Name)}
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Tuple(elts=elements)], value=value):
                    owned += [value] if all(isinstance(each, ast.Name) and each.id in names for each in elements) else []
        wrong += [f"{where(path, node)}: {ast.unparse(node)}" for node in calls(tree, OPENS) if node not in owned]
    assert not wrong, "\n".join(wrong)


@pytest.mark.unit
def test_the_model_does_no_input_or_output() -> None:
    pure = {"__future__", "collections.abc", "dataclasses", "functools", "html", "json", "types", "typing"}
    for tree in (tree for room, _, tree in MODULES if room == "model"):
        assert {name for _, name in imports(tree) if not name.startswith("nslab.model")} <= pure
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in ("open", "print", "input")]


# What a notebook may call by itself: it looks, or changes nothing but the caller's own small things.
HARMLESS = {
    "allow", "allowed", "chdir", "detached", "inotify_add_watch", "inotify_init1", "is_procfs", "kill", "listns", "memory_at",
    "mount_flags", "mq_getattr", "netlink_socket", "ns_get_id", "ns_get_nstype", "ns_get_owner_uid", "ns_get_parent",
    "ns_get_pid_from_pidns", "ns_get_pid_in_pidns", "ns_get_userns", "open_by_handle_at", "open_inside", "open_namespace",
    "openat2", "owner_of", "packet_socket", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "posix_spawn", "prctl",
    "read_file", "setsid", "shmdt", "signalfd", "siocgskns", "uname",
}  # fmt: skip


@pytest.mark.unit
def test_every_call_that_changes_something_asks_first() -> None:
    """Each other function of nslab.syscalls begins with refuse_here() under its own name."""
    functions = {
        node.name: node
        for room, _, tree in MODULES
        if room == "syscalls"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    for name in syscalls.__all__:
        if callable(getattr(syscalls, name)) and name not in HARMLESS:
            first = ast.unparse(functions[name].body[1])
            assert first.startswith(f"refuse_here('{'write' if name == 'write_file' else name}'"), name


@pytest.mark.parametrize(
    "call",
    [
        lambda: syscalls.sethostname(b"x" * 65),
        lambda: syscalls.setdomainname(b"x" * 65),
        lambda: syscalls.unshare(0),
        lambda: syscalls.setns(-1, 0),
        lambda: syscalls.mount(None, "/nowhere", None, 0),
        lambda: syscalls.umount2("/nowhere"),
        lambda: syscalls.chroot("/nowhere"),
        lambda: syscalls.pivot_root("/nowhere", "/nowhere"),
        lambda: syscalls.setresuid(os.getuid(), os.getuid(), os.getuid()),
        lambda: syscalls.write_file("/proc/self/uid_map", ""),
    ],
    ids=["sethostname", "setdomainname", "unshare", "setns", "mount", "umount2", "chroot", "pivot_root", "setresuid", "write"],
)
def test_the_machine_is_out_of_reach_from_this_process(call) -> None:
    """Arguments that would do no harm if the guard were gone: then it is SyscallError, or nothing at all."""
    with nslab.record() as trace, pytest.raises(nslab.Refused, match=r"nslab\.process"):
        call()
    assert len(trace) == 0


@pytest.mark.parametrize(("kind", "change"), [("uts", "sethostname"), ("uts", "setdomainname"), ("mnt", "umount")])
def test_a_steered_process_does_not_change_what_it_shares_with_the_machine(kind, change) -> None:
    names = os.uname()
    with nslab.process() as process:
        with pytest.raises(nslab.Refused, match=kind):
            getattr(process, change)("/nowhere")
        with pytest.raises(nslab.Refused, match="uts"):
            process.write("/proc/sys/kernel/hostname", "x")
        assert not process.trace.failed, "it must not come as far as the kernel"
    assert os.uname() == names


def test_the_spawner_has_one_thread_and_enters_nothing() -> None:
    nslab.run("true", isolate="all", clock={"boottime": 1})
    helpers = nslab.spawner.running_pids()
    assert len(helpers) >= 2
    for pid in helpers:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Threads"].strip() == "1"
        own = {kind for kind in KINDS if os.stat(f"/proc/{pid}/ns/{kind}") != os.stat(f"/proc/self/ns/{kind}")}
        borrowed = status["Name"].strip() == "nslab-borrowed"
        assert own == ({"user"} if borrowed else set())


def test_importing_nslab_starts_nothing() -> None:
    """No thread, no process, no descriptor, and none of the packages that are slow to import."""
    code = """
import os, sys, threading
before = sorted(os.listdir("/proc/self/fd"))
import nslab
assert sorted(os.listdir("/proc/self/fd")) == before
assert threading.active_count() == 1
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    assert file.read() == ""
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = set(done.stdout.split())
    assert "nslab" in loaded
    heavy = {
        "jupyterlab",
        "jupyter_client",
        "IPython",
        "ipywidgets",
        "pyroute2",
        "graphviz",
        "cloudpickle",
        "networkx",
        "ctypes",
    }
    assert not heavy & loaded
    assert not {name for name in loaded if name.startswith("nslab.")}, "names are loaded when they are first used"


def test_every_public_name_can_be_loaded() -> None:
    for name in nslab.__all__:
        assert getattr(nslab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nslab.nothing  # type: ignore[attr-defined]
