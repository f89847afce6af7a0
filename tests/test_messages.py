"""What an error says: which argument or path, the fact that broke a rule, and what to do; on a screen, not on five."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import nslab
from tests.helpers import eventually

ROOT = "user mnt pid"


def raised(call: Callable[[], object], *words: str) -> nslab.NslabError:
    with pytest.raises(nslab.NslabError) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def test_the_last_step_of_a_root_filesystem_fails_on_a_screen(tmp_path: Path) -> None:
    """The steps that nobody asked for are told together; all of them are in the error."""
    error = raised(lambda: nslab.run("true || x", isolate=ROOT, rootfs=tmp_path), "'/bin/sh'", str(tmp_path))
    assert isinstance(error, nslab.SyscallError)
    lines = str(error).splitlines()
    assert len(lines) <= 16
    assert sum(step.implied != "" for step in error.steps) > 50
    told = sum(int(number) for number in re.findall(r"and (\d+) implied steps", str(error)))
    assert told + sum(line.startswith("    ") and " implied steps: " not in line for line in lines) == len(error.steps)
    with nslab.Container(isolate=ROOT, rootfs=tmp_path) as box:
        raised(lambda: box.run("true || x"), f"no program '/bin/sh' in the root filesystem {tmp_path}")
        raised(lambda: box.popen(["nothing"]), "no program 'nothing'", str(tmp_path), "PATH")


def test_a_program_whose_interpreter_is_missing_is_there(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    raised(lambda: nslab.run([str(script)]), f"{str(script)!r} is here, but not the interpreter")
    script.chmod(0o644)
    raised(lambda: nslab.run([str(script)]), "not an executable file", "chmod +x")


@pytest.mark.parametrize("options", [{"isolate": "uts"}, {"isolate": "time mnt"}, {"hardened": True}], ids=str)
@pytest.mark.parametrize("words", [["/bin/echo", "x" * 200_000], ["/bin/echo", *["x" * 120_000] * 70]], ids=["word", "words"])
def test_what_is_too_long_is_not_printed_whole(options: dict, words: list[str]) -> None:
    with nslab.Container(**options) as web:
        for call in (lambda: nslab.run(words, **options), lambda: web.run(words)):
            error = raised(call, "'/bin/echo'", "E2BIG", " more ...", "ulimit -s", "what to do: give what is long as input=")
            assert len(str(error)) < 6000
            assert any(len(arg) > 190_000 for arg in error.args), "the error itself has all of it"
            assert len(str(web.trace)) < 20_000
        assert web.run("echo ok").stdout == "ok\n"


def test_a_working_directory_that_cannot_be_known_before(tmp_path: Path) -> None:
    raised(lambda: nslab.run("true", isolate=ROOT, rootfs=tmp_path, cwd="/etc/no"), "/etc/no in the root", "what to do: cwd=")
    with nslab.Container(isolate="user mnt", mounts=[nslab.Tmpfs("/mnt")]) as box:
        box.run("mkdir /mnt/new", check=True)
        assert box.run(["pwd"], cwd="/mnt/new").stdout == "/mnt/new\n"
        raised(lambda: box.run(["pwd"], cwd="/mnt/old"), "there is no /mnt/old", "what to do: cwd=")
    with nslab.process() as process:
        raised(lambda: process.run("true", cwd="/etc/passwd"), "/etc/passwd is a file", "what to do: cwd=")
        raised(lambda: process.run(["nope"]), "'nope'", "PATH")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/gone")
    with nslab.process() as process:
        for act in (process.read, process.chdir, lambda path: process.write(path, "")):
            raised(lambda act=act: act(f"{tmp_path}/a/b"), f"no {tmp_path}/a/b", f"{tmp_path} is the last that is there")
            raised(lambda act=act: act(str(link)), f"{link} is a symlink to /gone, which is not there")
            raised(lambda act=act: act("/etc/passwd/x"), "/etc/passwd is a file")
        raised(lambda: process.read("/etc"), "/etc is a folder, not a file")
        process.unshare("mnt")
        raised(lambda: process.chroot("/no/root"), "there is no /no/root")


def test_a_namespace_without_privilege_says_which_call_to_make() -> None:
    with nslab.process(as_="ordinary") as process:
        raised(lambda: process.unshare("uts net"), "what to do", "unshare('user uts net')")
        raised(lambda: process.fork("uts"), "what to do", "fork('user uts')")
        raised(lambda: process.chroot("/"), "CAP_SYS_CHROOT", "unshare('user')")


@pytest.mark.parametrize("user", [1000, "nobody"])
def test_a_user_who_is_not_mapped_is_refused_before(user: int | str) -> None:
    with nslab.record() as trace:
        error = raised(lambda: nslab.run("id", isolate="user uts", user=user), "uid_map='subordinate'")
    assert isinstance(error, nslab.SpecError)
    assert error.argument == "user"
    assert not [step for step in trace if "CLONE_NEWUTS" in str(step)]
    with nslab.Container(isolate="user") as web:
        raised(lambda: web.run("id", user=user), "uid_map='subordinate'")


def test_after_the_end_of_init_the_container_is_named(tmp_path: Path) -> None:
    with nslab.Container("web", isolate="user pid uts") as web:
        words = ("Container 'web'", f"its init (PID {web.pid}) has ended")
        begun = tmp_path / "begun"

        def kill() -> None:
            assert eventually(begun.exists)
            os.kill(web.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        dead = [raised(lambda: web.call(lambda: (begun.touch(), signal.pause())), *words)]
        killer.join()
        dead += [
            raised(use, *words) for use in (lambda: web.run("true"), lambda: web.popen("true"), lambda: web.call(os.getpid))
        ]
        assert {type(error) for error in dead} == {nslab.DeadNamespace}


@pytest.mark.parametrize("dies", [True, False])
def test_who_enters_while_init_ends_is_told_that(dies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may answer EPERM for a process that is on its way out, as for one that may not be entered."""
    with nslab.Container("web", isolate="uts") as web:

        def refused(*_: object, **__: object) -> None:
            if dies:
                os.kill(web.pid, signal.SIGKILL)
            raise nslab.SyscallError("setns", (), errno.EPERM)

        monkeypatch.setattr(web._spawner, "start", refused)
        error = raised(lambda: web.run("true"), f"its init (PID {web.pid}) has ended" if dies else "EPERM")
        assert type(error) is (nslab.DeadNamespace if dies else nslab.SyscallError)
        monkeypatch.undo()
