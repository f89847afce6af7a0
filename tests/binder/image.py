"""The image of binder/Dockerfile as a folder, without a container engine: mmdebstrap is its FROM, bubblewrap does its steps.

What stands before the first COPY is kept in build/binder, by the text that it came from; the rest is done each time, in an
overlay above it that exists in one mount namespace only.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.binder.recipe import Recipe, Step, read

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "binder"
SLIM = ("man", "doc", "locale", "info")  # what the -slim images of Debian leave out, in /usr/share
# And what they have: apt leaves nothing behind.
CLEAN = 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\nDir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
# How the builder reaches the network is the machine's business, as it is an engine's.
LENT = {path: path for path in ("/etc/resolv.conf", "/etc/pip.conf")}
HOSTNAME = "nslab"
AUTHORITIES = "/run/authorities.crt"
LENT[os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"] = AUTHORITIES  # some machines trust one more
MS_REC, MS_PRIVATE = 0x4000, 1 << 18


class Image:
    """A root filesystem at ``root``, and the recipe that it was made by."""

    def __init__(self, recipe: Recipe, root: Path, *, size: int, seconds: float):
        self.recipe, self.root, self.size, self.seconds = recipe, root, size, seconds


@contextlib.contextmanager
def built(*, more: str = "", say=lambda text: None) -> Iterator[Image]:
    """The finished image; ``more`` is a shell command that root runs in it at last. Needs root, mmdebstrap and bwrap.

    This process gets a mount namespace of its own, so do it in one that does nothing else.
    """
    recipe = read(ROOT / "binder" / "Dockerfile")
    began = time.monotonic()
    libc = ctypes.CDLL(None, use_errno=True)
    os.unshare(0x20000) if hasattr(os, "unshare") else libc.unshare(0x20000)  # CLONE_NEWNS
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no private mount namespace")
    base = _base(recipe, say)
    upper, work, merged = (CACHE / name for name in ("upper", "work", "merged"))
    for folder in (upper, work, merged):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    options = f"lowerdir={base},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        for step in recipe.steps[_copies(recipe) :]:
            _do(step, merged, say)
        (merged / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}\n")  # an engine writes it
        if more:
            _do(Step("RUN", more, env=recipe.env), merged, say)
        yield Image(recipe, merged, size=_size(base) + _size(upper), seconds=time.monotonic() - began)
    finally:
        subprocess.run(["umount", "--lazy", merged], check=True)
        for folder in (upper, work, merged):
            shutil.rmtree(folder, ignore_errors=True)


def _copies(recipe: Recipe) -> int:
    return next(index for index, step in enumerate(recipe.steps) if step.does == "COPY")


def _base(recipe: Recipe, say) -> Path:
    """The steps before the first COPY, done or found done."""
    steps = recipe.steps[: _copies(recipe)]
    text = json.dumps([recipe.base, *[(step.text, step.user, dict(step.env)) for step in steps]])
    base = CACHE / f"base-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if base.is_dir():
        say(f"{base.relative_to(ROOT)} is there")
        return base
    for old in CACHE.glob("base-*"):
        shutil.rmtree(old)
    half = CACHE / "base-half"
    half.parent.mkdir(parents=True, exist_ok=True)
    suite = recipe.base.removeprefix("debian:").removesuffix("-slim")
    say(f"FROM {recipe.base}: mmdebstrap {suite}")
    without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in SLIM]
    usr = [f"--hook-dir={HOOKS}", "--include=usr-is-merged"]
    _checked(["mmdebstrap", "--quiet", "--variant=minbase", *usr, *without, suite, half])
    (half / "etc" / "apt" / "apt.conf.d" / "docker-clean").write_text(CLEAN)
    for step in steps:
        _do(step, half, say)
    return half.rename(base)


def _do(step: Step, root: Path, say) -> None:
    say(f"{step.does} {step.text[:100]}")
    if step.does == "COPY":
        _copy(root, step.text.split()[-1])
    else:
        _checked([*inside(root, step.env, folder=step.folder, network=True), "sh", "-ec", step.text])


def inside(root: Path, env: Mapping[str, str], *, folder: str = "/", network: bool = False) -> list[str]:
    """The beginning of a command line that runs the rest as root in the image, which it may change."""
    lent: dict[str, str] = {}
    if network:
        lent = {**LENT, **{path: path for path in _wheels()}}
        pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "http", "HTTP", "no_proxy"))}
        env = {**pip, "PIP_CERT": AUTHORITIES, **env}
    binds = [
        word for here, there in lent.items() if os.path.exists(here) for word in ("--ro-bind", os.path.realpath(here), there)
    ]
    names = [word for name, value in env.items() for word in ("--setenv", name, value)]
    return [
        "bwrap", "--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", *binds,
        "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-add", "ALL", "--clearenv", *names, "--chdir", folder,
    ]  # fmt: skip


def _wheels() -> list[str]:
    """Folders of packages on this machine that pip is told of."""
    words = " ".join(Path(path).read_text() for path in ("/etc/pip.conf",) if os.path.exists(path)).split()
    paths = {word.removeprefix("file://") for word in [*words, *os.environ.get("PIP_FIND_LINKS", "").split()]}
    return sorted(path for path in paths if path.startswith("/") and os.path.isdir(path))


def _copy(root: Path, target: str) -> None:
    names = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(names, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            place = root / target.lstrip("/") / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place)


def _size(folder: Path) -> int:
    return int(subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True).stdout.split()[0]) * 1024


def _checked(command: list) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command[-3:]))[:200]} failed with {done.returncode}:\n{done.stdout[-3000:]}")
