"""Checking what was asked for, before anything is made: each function returns the clean value or raises SpecError."""

from __future__ import annotations

import difflib
import itertools
import operator
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nslab import procfs
from nslab.errors import SpecError
from nslab.model import KINDS, IdRange
from nslab.syscalls import owner_of

MAX_ID = 2**32 - 2  # 4294967295 stands for "no id" in the kernel
MAX_PID = 2**22 - 1  # whatever pid_max says. proc(5)
MAX_LEVELS = 33  # the initial PID namespace and 32 below it. pid_namespaces(7)
MAX_LINES = 340  # user_namespaces(7)
MAX_TEXT = 4095  # one write of less than a page
MAX_CLOCK = 2**63 // 10**9 // 2  # seconds that a clock may show; time_namespaces(7)

Command = str | Sequence[str]
Folder = str | os.PathLike[str]


def kinds(isolate: str | Iterable[str], argument: str = "isolate") -> tuple[str, ...]:
    """ "uts pid", ["uts", "pid"] or "all" that this kernel has -> the kinds in the order of KINDS."""
    if not isinstance(isolate, Iterable):
        raise SpecError(argument, f"must be text or a list of kinds, not {type(isolate).__name__}")
    words = isolate.replace(",", " ").split() if isinstance(isolate, str) else list(isolate)
    if words == ["all"]:
        return tuple(procfs.kinds())
    for word in words:
        if word not in KINDS:
            rule = f"{word!r} is no kind of namespace ({', '.join(KINDS)}, or all)"
            raise SpecError(argument, rule + guess(word, (*KINDS, "all")))
    return tuple(kind for kind in KINDS if kind in words)


def guess(word: Any, known: Iterable[str]) -> str:
    """ "; did you mean ...?" for a word that is nearly one of those that are known, else ""."""
    close = difflib.get_close_matches(str(word).lower(), known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def hostname(name: str | None, isolated: tuple[str, ...], argument: str = "hostname") -> str | None:
    """A name of 1 to 64 bytes without NUL, which needs an own UTS namespace (else it would rename the machine)."""
    if name is None:
        return None
    text(argument, name)
    size = len(os.fsencode(name))
    if not 1 <= size <= 64:
        raise SpecError(argument, f"{size} bytes long; the minimum is 1, the maximum 64 bytes. sethostname(2)")
    if "uts" not in isolated:
        raise SpecError(argument, "needs a UTS namespace of its own (isolate='uts ...'); else it would rename the machine")
    return name


def text(argument: str, value: Any) -> str:
    """A str without NUL, which no system call takes."""
    if not isinstance(value, str):
        raise SpecError(argument, f"must be text (str), not {type(value).__name__}")
    if "\0" in value:
        raise SpecError(argument, "must not contain a NUL character")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise SpecError(argument, f"cannot be encoded: {error}") from None
    return value


_MAGIC = re.compile(r"/proc/(self|thread-self|\d+)(/task/\d+)?/(fd|cwd|root|exe|ns|map_files)(/|$)")


def working_directory(argument: str, value: Folder) -> str:
    """A path that does not begin with a magic link of /proc, which leads to wherever a descriptor or a process is."""
    path = text(argument, os.fspath(value) if isinstance(value, os.PathLike) else value)
    if _MAGIC.match(os.path.normpath(path)):
        raise SpecError(argument, f"{path} is a magic link, which may lead out of a container; give the path itself. proc(5)")
    return path


def folder_there(argument: str, path: Folder) -> None:
    """Refuse a working directory that is not there (for commands that see the machine's own files, /proc apart)."""
    if os.fspath(path).startswith("/proc/"):
        return
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise SpecError(argument, f"{path} is a file, not a folder")
    except (FileNotFoundError, NotADirectoryError):
        raise SpecError(argument, f"there is no folder {path}") from None
    except PermissionError:  # whoever runs the command may be allowed to go there
        return


def number(argument: str, value: Any, least: int, most: int) -> int:
    """A whole number in a range."""
    if not isinstance(value, int):
        raise SpecError(argument, f"must be a whole number, not {value!r}")
    if not least <= value <= most:
        raise SpecError(argument, f"{value} does not lie between {least} and {most}")
    return int(value)


def pids(argument: str, numbers: Iterable[Any]) -> tuple[int, ...]:
    """PIDs, one for each of at most 33 levels of PID namespaces."""
    if isinstance(numbers, str) or not isinstance(numbers, Iterable):
        raise SpecError(argument, f"must be a list of PIDs, not {numbers!r}")
    chosen = tuple(number(argument, each, 1, MAX_PID) for each in numbers)
    if len(chosen) > MAX_LEVELS:
        raise SpecError(argument, f"has {len(chosen)} PIDs; a process has at most {MAX_LEVELS}. pid_namespaces(7)")
    return chosen


def id_ranges(argument: str, lines: Iterable[Any]) -> tuple[IdRange, ...]:
    """(inside, outside, count) triples: numbers in range, no two overlapping on either side, at most 340."""
    ranges = []
    if not isinstance(lines, Iterable):
        raise SpecError(argument, f"{lines!r} is neither 'single', 'subordinate' nor lines of (inside, outside, count)")
    for line in lines:
        try:
            inside, outside, count = (operator.index(number) for number in line)
        except (TypeError, ValueError):
            raise SpecError(argument, f"{line!r} is not (inside, outside, count), three whole numbers") from None
        if count < 1 or min(inside, outside) < 0 or max(inside, outside) + count - 1 > MAX_ID:
            raise SpecError(argument, f"{line!r}: count must be at least 1, and ids lie between 0 and {MAX_ID}")
        ranges.append(IdRange(inside, outside, count))
    if not ranges:
        raise SpecError(argument, "must have at least one line")
    if len(ranges) > MAX_LINES:
        raise SpecError(argument, f"has {len(ranges)} lines; the kernel takes at most {MAX_LINES}. user_namespaces(7)")
    size = sum(len(f"{line.inside} {line.outside} {line.count}\n") for line in ranges)
    if size > MAX_TEXT:
        raise SpecError(
            argument, f"has {size} bytes when written; the kernel takes at most {MAX_TEXT} bytes. user_namespaces(7)"
        )
    for side in ("inside", "outside"):
        order = sorted(ranges, key=lambda line: getattr(line, side))
        for one, two in itertools.pairwise(order):
            if getattr(one, side) + one.count > getattr(two, side):
                raise SpecError(argument, f"{tuple(one)} and {tuple(two)} overlap {side}. user_namespaces(7)")
    return tuple(ranges)


_SIMPLE = re.compile(r"/[A-Za-z0-9_./+@%:,=-]*(?: +[A-Za-z0-9_./+@%:,=-]+)*")


def argv(command: Command) -> tuple[str, ...]:
    """A list is taken as it is; a str is for sh, but for one that is plainly a program's path and plain words."""
    if isinstance(command, str):
        text("command", command)
        if not command.strip():
            raise SpecError("command", "is empty")
        return tuple(command.split()) if _SIMPLE.fullmatch(command) else ("/bin/sh", "-c", command)
    if not isinstance(command, Iterable):
        raise SpecError("command", f"must be text or a list of words, not {type(command).__name__}")
    words = tuple(os.fspath(word) if isinstance(word, os.PathLike) else word for word in command)
    if not words or not words[0]:
        raise SpecError("command", "is empty")
    return tuple(text("command", word) for word in words)


def program(words: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> None:
    """Refuse a command that is not there (for commands that see the machine's own files)."""
    name = words[0]
    if "/" in name:
        if os.path.isdir(os.path.join(cwd or "", name)):
            raise SpecError("command", f"{name!r} is a folder, not a program")
        found = os.path.isfile(os.path.join(cwd or "", name))
    else:
        path = env.get("PATH", os.defpath)
        found = any(os.access(os.path.join(folder or ".", name), os.X_OK) for folder in path.split(":"))
    if not found:
        where = "" if "/" in name else f" in PATH ({env.get('PATH', os.defpath)})"
        raise SpecError("command", f"there is no program {name!r}{where}")


def environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """A whole environment (None: that of this process); names without "=", nothing with NUL."""
    if env is None:
        return dict(os.environ)
    if not isinstance(env, Mapping):
        raise SpecError("env", f"must be a dict, not {type(env).__name__}")
    for key, value in env.items():
        text("env", key)
        text("env", value)
        if not key or "=" in key:
            raise SpecError("env", f"{key!r} cannot be the name of a variable")
    return dict(env)


_SYSCTL = re.compile(r"[A-Za-z0-9_@:,-]+(?:[./][A-Za-z0-9_@:,-]+)+")


def sysctl(name: str, argument: str = "sysctls") -> str:
    """ "kernel.shmmax" or "kernel/shmmax" -> its file in /proc/sys; dots inside a part need the form with slashes."""
    if not isinstance(name, str) or not _SYSCTL.fullmatch(name):
        raise SpecError(argument, f"{name!r} is no name of a sysctl, such as 'kernel.shmmax' or 'net.ipv4.ip_forward'")
    return "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))


def sysctls(values: Mapping[str, int | str] | None, isolated: tuple[str, ...]) -> dict[str, str]:
    """{"kernel.shmmax": 65536} -> {file: text}; Refused for one that belongs to no namespace."""
    if values is not None and not isinstance(values, Mapping):
        raise SpecError("sysctls", f"must be a dict, not {type(values).__name__}")
    result = {}
    for name, value in (values or {}).items():
        path = sysctl(name)
        kind = owner_of(path)
        if kind not in isolated:
            raise SpecError("sysctls", f"{name} is of kind {kind}: it needs a namespace of its own (isolate='{kind} ...')")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise SpecError("sysctls", f"{name} must be a whole number or text, not {value!r}")
        if not os.path.exists(path) and os.path.isdir("/proc/sys/kernel"):
            raise SpecError("sysctls", f"there is no {name} on this machine{_near(path, name)}")
        result[path] = text("sysctls", str(value))
    return result


def _near(path: str, name: str) -> str:
    """A guess which sysctl was meant, among those that are there."""
    above = os.path.dirname(path)
    names = os.listdir(above) if os.path.isdir(above) else ()
    return guess(name, [name[: -len(os.path.basename(path))] + each for each in names])


def folder(argument: str, path: Folder | None, isolated: tuple[str, ...], needs: tuple[str, ...]) -> str | None:
    """An absolute path at which something is mounted, which needs own namespaces of these kinds."""
    if path is None:
        return None
    path = text(argument, os.fspath(path) if isinstance(path, os.PathLike) else path)
    if not path.startswith("/"):
        raise SpecError(argument, f"{path!r} is not an absolute path")
    for kind in needs:
        if kind not in isolated:
            raise SpecError(argument, f"needs a namespace of its own of kind {kind} (isolate='{kind} ...')")
    return path


CLOCKS = ("monotonic", "boottime")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def clock(offsets: Mapping[str, float | str] | None, isolated: tuple[str, ...]) -> dict[str, int]:
    """{"monotonic": "+1d", "boottime": 3600} -> nanoseconds; needs an own time namespace."""
    if not offsets:
        return {}
    if "time" not in isolated:
        raise SpecError("clock", "needs a time namespace of its own (isolate='time ...')")
    if not isinstance(offsets, Mapping):
        raise SpecError("clock", f"must be a dict, not {type(offsets).__name__}")
    result = {}
    for name, offset in offsets.items():
        if name not in CLOCKS:
            raise SpecError(
                "clock", f"{name!r} has no offset; only {' and '.join(CLOCKS)} have{guess(name, CLOCKS)}. time_namespaces(7)"
            )
        match = re.fullmatch(r"([+-]?\d+(?:\.\d+)?)\s*([smhd]?)", str(offset).strip())
        if not match:
            raise SpecError("clock", f"{offset!r} is not a number of seconds, nor one with s, m, h or d behind it")
        seconds = float(match[1]) * _UNITS[match[2]]
        now = time.clock_gettime(time.CLOCK_MONOTONIC if name == "monotonic" else time.CLOCK_BOOTTIME)
        if not 0 <= now + seconds <= MAX_CLOCK:
            what = "would be negative" if seconds < 0 else f"is too large: a clock shows at most {MAX_CLOCK} s"
            raise SpecError("clock", f"{name} {what}; it is {now:.0f} s now. time_namespaces(7)")
        result[name] = round(seconds * 1e9)
    return result
