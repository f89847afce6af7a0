"""nslab.run: one command, and the Result that it leaves."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nslab
from tests.helpers import in_python

KINDS = "uts pid mnt"


# -- commands and how they end ----------------------------------------------------------------------------------------


def test_text_is_for_sh_and_a_list_is_not() -> None:
    assert nslab.run("echo $((2 + 3)) | tr 5 6").stdout == "6\n"
    assert nslab.run(["echo", "$((2 + 3))", "a  b"]).stdout == "$((2 + 3)) a  b\n"
    assert nslab.run("/bin/echo a   b").stdout == "a b\n"
    assert nslab.run([Path("/bin/echo"), "x"]).args == ("/bin/echo", "x")


@pytest.mark.parametrize("kinds", ["", KINDS])
@pytest.mark.parametrize(
    ("command", "code"),
    [("true", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", -15), ("kill -SEGV $$", -11), ("no-such-command", 127)],
)
def test_the_return_code_is_that_of_subprocess(kinds: str, command: str, code: int) -> None:
    assert nslab.run(command, isolate=kinds).returncode == code


def test_a_file_that_cannot_be_executed(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    with pytest.raises(nslab.SyscallError, match="not an executable file") as caught:
        nslab.run([str(script)])
    assert caught.value.name == "EACCES"
    script.chmod(0o755)
    with pytest.raises(nslab.SyscallError, match="nor a script that begins with #!") as caught:
        nslab.run([str(script)], isolate="uts", hostname="web")
    assert caught.value.name == "ENOEXEC"
    assert "sethostname('web', 3) = 0" in [str(step).partition("   [")[0] for step in caught.value.steps]


def test_check_says_what_was_run_and_what_it_said() -> None:
    with pytest.raises(nslab.CommandError, match=r"ended with status 4:\nno luck") as caught:
        nslab.run("echo out; echo no luck >&2; exit 4", check=True)
    assert caught.value.result.stdout == "out\n"
    with pytest.raises(nslab.CommandError, match="was ended by SIGKILL"):
        nslab.run("kill -9 $$").check()
    result = nslab.run("true", check=True)
    assert result.check() is result


@pytest.mark.parametrize("kinds", ["uts", KINDS])
def test_what_is_left_in_the_background_ends_with_the_command(kinds: str) -> None:
    """The leak check of every test would see them."""
    begin = time.monotonic()
    result = nslab.run("sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &); echo done", isolate=kinds)
    assert result.stdout == "done\n"
    assert time.monotonic() - begin < 5


# -- streams ----------------------------------------------------------------------------------------------------------


def test_output_is_shown_while_the_command_runs(tmp_path: Path) -> None:
    """The command goes on only after its first line has been seen: without streaming this would never end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    seen = []

    def sink(text: str, name: str) -> None:
        seen.append((name, text))
        if text == "one\n":
            fifo.write_text("go\n")

    result = nslab.run(f"echo one; read word < {fifo}; echo two $word >&2", stream=sink, timeout=20)
    assert seen == [("stdout", "one\n"), ("stderr", "two go\n")]
    assert (result.stdout, result.stderr) == ("one\n", "two go\n")


def test_streamed_output_goes_where_the_cell_prints(capsys: pytest.CaptureFixture[str]) -> None:
    result = nslab.run("echo out; echo err >&2; exit 2", stream=True)
    assert tuple(capsys.readouterr()) == ("out\n", "err\n")
    assert str(result) == "[ended with status 2]", "what was shown is not shown again"


def test_a_character_is_not_torn_by_streaming() -> None:
    text = "a" * 65535 + "ü€𝄞" * 30000
    pieces: list[str] = []
    result = nslab.run(["cat"], input=text, stream=lambda piece, _: pieces.append(piece))
    assert "".join(pieces) == result.stdout == text


def test_binary_output() -> None:
    every = bytes(range(256))
    assert nslab.run(["cat"], input=every, text=False).stdout == every
    assert nslab.run(["cat"], input=b"a\xff\n").stdout == "a\ufffd\n"


def test_input() -> None:
    assert nslab.run(["cat"], input="grüße").stdout == "grüße"
    assert nslab.run(["cat"]).stdout == "", "without input there is an end of file at once"
    assert nslab.run(["cat"], input="").stdout == ""
    big = os.urandom(3 << 20)
    assert nslab.run(["cat"], input=big, text=False, max_output=4 << 20).stdout == big
    assert nslab.run("exit 7", input=big).returncode == 7, "a command need not read its input"
    assert nslab.run("exec <&-; echo closed", input=big).stdout == "closed\n"


def test_all_that_was_written_before_the_end_is_there() -> None:
    assert len(nslab.run("head -c 3000000 /dev/zero", max_output=4 << 20).stdout) == 3_000_000
    assert nslab.run("exec >&- 2>&-; exit 4").returncode == 4


def test_endless_output_is_cut_and_counted() -> None:
    with pytest.raises(nslab.CommandTimeout) as caught:
        nslab.run("yes", timeout=0.2, max_output=1000)
    result = caught.value.result
    assert result.stdout == "y\n" * 500
    assert result.truncated
    assert result.omitted > 1000
    assert f"{result.omitted} bytes omitted" in str(result)


def test_a_gibibyte_does_not_fill_the_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = nslab.run(["head", "-c", str(1 << 30), "/dev/zero"], text=False)
    assert len(result.stdout) == 1 << 20
    assert result.omitted == (1 << 30) - (1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # kB


def test_a_terminal() -> None:
    assert nslab.run("test -t 0 || test -t 1 || test -t 2").returncode == 1
    result = nslab.run("test -t 0 && test -t 1 && test -t 2 && echo yes > /dev/tty", tty=True)
    assert (result.returncode, result.stdout) == (0, "yes\r\n")


# -- where, as whom, how long -----------------------------------------------------------------------------------------


def test_the_environment_is_the_one_given() -> None:
    assert nslab.run(["env"], env={"A": "b c", "Ü": "é"}).lines == ["A=b c", "Ü=é"]
    os.environ["NSLAB_TEST_WORD"] = "here"
    try:
        assert nslab.run("echo $NSLAB_TEST_WORD").stdout == "here\n"
    finally:
        del os.environ["NSLAB_TEST_WORD"]


@pytest.mark.parametrize("kinds", ["", KINDS])
def test_the_working_directory(kinds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    assert nslab.run(["pwd"], isolate=kinds, cwd=tmp_path).stdout == f"{tmp_path}\n"
    monkeypatch.chdir(tmp_path)
    assert nslab.run(["pwd"], isolate=kinds).stdout == f"{tmp_path}\n", "it follows this process"
    assert nslab.run(["pwd"], isolate=kinds, cwd="sub").stdout == f"{tmp_path}/sub\n"
    with pytest.raises(nslab.SpecError, match=f"cwd: there is no folder {tmp_path}/missing"):
        nslab.run(["pwd"], isolate=kinds, cwd="missing")


@pytest.mark.requires("root")
def test_another_user() -> None:
    assert nslab.run("id -u; id -g; id -G", user=1234).lines == ["1234", "1234", "1234"]
    assert nslab.run("id -un; grep CapEff /proc/self/status", user="nobody").lines == ["nobody", "CapEff:\t0000000000000000"]
    assert nslab.run("id -u", isolate="user", uid_map="subordinate", user=5).stdout == "5\n"


def test_a_user_that_is_not_mapped() -> None:
    with pytest.raises(nslab.SpecError, match="uid 1234 is in no line of the id map"):
        nslab.run("true", isolate="user", user=1234)
    with nslab.process() as process:
        process.unshare("user")
        for file, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            process.write(f"/proc/self/{file}", text)
        with pytest.raises(nslab.SyscallError, match="not mapped in this user namespace"):
            process.setids(1234, 1234)


@pytest.mark.parametrize("kinds", ["", KINDS])
def test_a_timeout_ends_everything_and_keeps_the_output(kinds: str) -> None:
    begin = time.monotonic()
    with pytest.raises(nslab.CommandTimeout, match=r"still running after 0\.2 s") as caught:
        nslab.run("echo early; (trap '' TERM; sleep 1000) & wait", isolate=kinds, timeout=0.2)
    assert time.monotonic() - begin < 2
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.result.stdout == "early\n"
    assert caught.value.result.returncode == -9
    assert nslab.run("true", timeout=1e9).returncode == 0


@pytest.mark.parametrize("kinds", ["", KINDS])
def test_the_stop_button_ends_the_command(kinds: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        nslab.run("echo go; sleep 1000", isolate=kinds, stream=lambda *_: os.kill(os.getpid(), signal.SIGINT))


def test_an_error_in_the_sink_ends_the_command() -> None:
    with pytest.raises(ZeroDivisionError):
        nslab.run("echo go; sleep 1000", stream=lambda *_: 1 // 0)


def test_several_threads_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: nslab.run(f"echo {n}; exit {n}", isolate=KINDS), range(16)))
    assert [(r.stdout, r.returncode) for r in results] == [(f"{n}\n", n) for n in range(16)]
    assert threading.active_count() == 1


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"tty": True}, {"isolate": "user", "user": 0}], ids=["plain", "tty", "user"])
def test_signals_are_as_a_program_expects_them(options: dict) -> None:
    """SIGPIPE is not ignored (yes ends by it), nothing is blocked: the spawner's ways stay its own."""
    lines = nslab.run("cat /proc/self/status", **options).lines
    status = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    of_the_library = 0b11 << 31  # 32 and 33, which glibc's posix_spawn ignores
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~of_the_library == 0
    assert nslab.run("yes | head -n 1", timeout=10, **options).lines == ["y"]


@pytest.mark.parametrize("kinds", ["", KINDS])
def test_a_command_inherits_nothing_of_ours(kinds: str) -> None:
    """Standard streams only, and the limits of this process."""
    assert nslab.run("ls /proc/self/fd", isolate=kinds).lines == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    assert nslab.run("ulimit -n", isolate=kinds).stdout.strip() == str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_a_result_shows_itself() -> None:
    bundle = nslab.run("echo '<b>&'; echo oops >&2; exit 3")._repr_mimebundle_()
    assert bundle["text/plain"] == "<b>&\noops\n[ended with status 3]"
    assert "monospace" in bundle["text/html"], "columns stay columns where a page gives <pre> no font"
    assert "&lt;b&gt;&amp;" in bundle["text/html"]
    assert "oops" in bundle["text/html"]
    assert nslab.run("true")._repr_mimebundle_()["text/plain"] == ""
    assert "\\xff" in str(nslab.run("printf '\\377'", text=False))


def test_a_notebook_without_standard_streams(tmp_path: Path) -> None:
    """As a daemon may be: what the spawner is started with must not have their numbers."""
    script = f"""
import os
for fd in range(3):
    os.close(fd)
import nslab
from tests.helpers import in_python
with nslab.Container(isolate="uts", hostname="web") as web:
    lines = [*web.run("hostname; cat", input="typed").lines, web.call(os.uname).nodename, *web.run("ls /proc/self/fd").lines]
with open({str(tmp_path / "said")!r}, "w") as file:
    file.write(" ".join(lines))
"""
    assert in_python(script).returncode == 0
    assert (tmp_path / "said").read_text() == "web typed web 0 1 2 3"
