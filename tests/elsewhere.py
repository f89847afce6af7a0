"""The same tests as another user: a copy of the checkout and of its environment that uid 65534 can read.

The checkout may lie under a folder that only root can enter, and so may the Python that its environment was made with.
Files are hard links where that is possible: nobody's copies of root's files cannot be written through.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
SUBORDINATE = range(300_000, 300_000 + 65_536)
SUBIDS = f"{{name}}:{SUBORDINATE.start}:{len(SUBORDINATE)}\n"


def ours(uid: int, user: int | None = None) -> bool:
    """Whether what belongs to this uid can come from tests of this user (oneself): those of root and of nobody may run at once.

    Root's tests make things for any id but nobody's.
    """
    user = os.geteuid() if user is None else user
    nobodys = uid == NOBODY or uid in SUBORDINATE
    return uid == user or uid in SUBORDINATE if user else not nobodys


class Elsewhere:
    """A folder in /tmp with copies in it, removed by close()."""

    def __init__(self, checkout: Path):
        self.checkout = checkout
        self.folder = Path(tempfile.mkdtemp(prefix="nslab-tests-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.copy = self.folder / checkout.name
        self._copy_checkout()
        for name in ("home", "tmp"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, NOBODY, NOBODY)
        self._environments: dict[Path, tuple[Path, dict[str, str]]] = {}

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def prepare(self, pythons: Iterable[Path]) -> None:
        """Copy what these need: before lanes are forked that would each do so."""
        for python in pythons:
            self._environment(python)

    def command(self, python: Path, arguments: list[str], *, subids: bool = False) -> tuple[list[str], dict[str, str]]:
        """How to run ``python`` with arguments as nobody, in the copy: the command and its environment."""
        venv, env = self._environment(python)
        env = {
            "PATH": f"{venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": f"{self.folder}/home",
            "TMPDIR": f"{self.folder}/tmp",
            "LANG": "C.UTF-8",
            **{name: value for name, value in os.environ.items() if name.startswith("NSLAB_") or name == "CI"},
            **env,
        }
        command = [*AS_NOBODY, f"{venv}/bin/python", *arguments]
        return (self._with_subids(command) if subids else command), env

    def _with_subids(self, command: list[str]) -> list[str]:
        """Subordinate ids for nobody: a layer over /etc, in a mount namespace that only this command is in."""
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        for name in ("subuid", "subgid"):
            (etc / name).write_text(SUBIDS.format(name=pwd.getpwuid(NOBODY).pw_name))
        cover = f'mount -t overlay overlay -o lowerdir={etc}:/etc /etc && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", cover, "sh", *command]

    # -- copies

    def _copy_checkout(self) -> None:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self.checkout, capture_output=True, text=True,
        )  # fmt: skip
        if listing.returncode == 0:
            for name in filter(None, listing.stdout.split("\0")):
                if (self.checkout / name).is_file():
                    (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(self.checkout / name, self.copy / name)
        else:
            ignore = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache")
            shutil.copytree(self.checkout, self.copy, ignore=ignore)
        for folder, _, names in os.walk(self.copy):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                os.chown(path, NOBODY, NOBODY)
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))

    def _environment(self, python: Path) -> tuple[Path, dict[str, str]]:
        """A copy of the environment of ``python``: its folder, and the variables it needs."""
        if python not in self._environments:
            self._environments[python] = self._copy_environment(python)
        return self._environments[python]

    def _copy_environment(self, python: Path) -> tuple[Path, dict[str, str]]:
        old = python.parent.parent
        base, prefix, version = _ask(python, "sys._base_executable, sys.base_prefix, '%d.%d' % sys.version_info[:2]")
        env = {}
        if not _is_usable(base):
            base, library = self._copy_python(Path(base), Path(prefix), version)
            env["LD_LIBRARY_PATH"] = library
        venv = self.folder / old.name
        subprocess.run([base, "-m", "venv", "--without-pip", venv], check=True, env={**os.environ, **env})
        for name in (f"lib/python{version}/site-packages", "share", "etc"):
            if (old / name).is_dir():
                _link_tree(old / name, venv / name)
        for script in (old / "bin").iterdir():
            if not script.is_symlink() and not (venv / "bin" / script.name).exists():
                shutil.copy(script, venv / "bin" / script.name)
                _replace(venv / "bin" / script.name, str(old), str(venv))
        for editable in venv.glob("lib/python*/site-packages/*.pth"):
            _replace(editable, str(self.checkout), str(self.copy))
        return venv, env

    def _copy_python(self, base: Path, prefix: Path, version: str) -> tuple[str, str]:
        """A Python installation that nobody can read; what it needs to find its shared library comes with it."""
        new = self.folder / f"python{version}"
        if not new.exists():
            ignore = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "*.a")
            _link_tree(prefix / "lib" / f"python{version}", new / "lib" / f"python{version}", ignore)
            for library in (prefix / "lib").glob("libpython*.so*"):
                _link(str(library), str(new / "lib" / library.name))
            (new / "bin").mkdir()
            _link(str(base.resolve()), str(new / "bin" / f"python{version}"))
        return f"{new}/bin/python{version}", f"{new}/lib"


def _ask(python: Path | str, expression: str) -> list[str]:
    code = f"import sys; print(*({expression}), sep='\\n')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def _is_usable(python: str) -> bool:
    """Whether nobody can run it; asked of a shell, since setpriv still has its capabilities when it executes a file."""
    command = [*AS_NOBODY, "sh", "-c", 'exec "$0" -c ""', python]
    return subprocess.run(command, capture_output=True, cwd="/").returncode == 0


def _link(source: str, target: str) -> str:
    """A hard link where everybody may read the file and it is on the same filesystem, else a copy."""
    if os.stat(source).st_mode & 0o004:
        try:
            os.link(source, target)
            return target
        except OSError:
            pass
    shutil.copy2(source, target)
    os.chmod(target, os.stat(target).st_mode | 0o444)
    return target


def _link_tree(source: Path, target: Path, ignore=None) -> None:
    shutil.copytree(source, target, copy_function=_link, ignore=ignore, dirs_exist_ok=True)


def _replace(path: Path, old: str, new: str) -> None:
    """Change the text of a file, in a copy of its own."""
    content = path.read_bytes()
    if old.encode() in content:
        mode = path.stat().st_mode
        path.unlink()
        path.write_bytes(content.replace(old.encode(), new.encode()))
        path.chmod(mode)
