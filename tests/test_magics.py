"""%ns and %%ns, in a real IPython shell; tests/notebooks has them in a real kernel."""

from __future__ import annotations

import os
import signal

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import nslab
from nslab.magics import names
from tests.helpers import has_ended, pidfd_of


@pytest.fixture
def shell(tmp_path, monkeypatch) -> InteractiveShell:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_line_magic("load_ext", "nslab")
    return shell


def test_a_cell_runs_inside(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="uts pid mnt", hostname="in-a-box"):
        shell.run_cell_magic("ns", "boxed", "hostname\necho err >&2")
        output = capsys.readouterr()
        assert (output.out, output.err) == ("in-a-box\n", "err\n")
        shell.run_cell_magic("ns", "boxed --python", "import os\nprint(os.getpid() < 100)")
        assert capsys.readouterr().out == "True\n"


def test_it_is_bash_and_has_no_input(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="uts"):
        shell.run_cell_magic("ns", "boxed", "[[ -n $BASH_VERSION ]] && echo {1..3}\ncat\necho 'it''s' \"$0\" over")
        assert capsys.readouterr().out == "1 2 3\nits bash over\n"


@pytest.mark.requires("tool:busybox")
def test_it_is_sh_where_there_is_no_bash(shell, capsys) -> None:
    with nslab.Container("small", isolate="mnt pid", rootfs="busybox"):
        shell.run_cell_magic("ns", "small", "test -z $BASH_VERSION && pwd")
        assert capsys.readouterr().out == "/\n"


def test_a_cell_that_fails_raises_unless_it_was_to(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="uts"):
        with pytest.raises(nslab.CommandError, match="status 3") as caught:
            shell.run_cell_magic("ns", "boxed", "echo before; exit 3")
        assert caught.value.result.stdout == "before\n"
        shell.run_cell_magic("ns", "boxed --expect-fail", "exit 3")
        assert "failed, as expected, with status 3" in capsys.readouterr().out
        with pytest.raises(nslab.CommandError, match="expected to fail"):
            shell.run_cell_magic("ns", "boxed --expect-fail", "true")
        with pytest.raises(nslab.CommandTimeout) as late:
            shell.run_cell_magic("ns", "boxed --timeout 0.1", "echo begun; sleep 1000")
        assert str(late.value) == "the cell was still running after 0.1 s, and was ended"
        assert late.value.result.stdout == "begun\n"
        with pytest.raises(nslab.CommandError, match="status 1"):
            shell.run_cell_magic("ns", "boxed --python", "raise SystemExit(1)")
        with pytest.raises(nslab.CommandError, match="status 4"):
            shell.run_line_magic("ns", "boxed exit 4")


def test_a_variable_names_a_container_too_and_the_unknown_is_named(shell) -> None:
    with nslab.Container("boxed", isolate="uts") as box:
        shell.user_ns["mine"] = box
        shell.user_ns["number"] = 5
        assert shell.run_line_magic("ns", "mine") is box
        assert shell.run_line_magic("ns", "") == [box]
        for line, rule in (
            ("other", "no container or node 'other' here; there are: boxed, mine"),
            ("boxde", "no container or node 'boxde' here; did you mean 'boxed'"),
            ("number", "'number' is int, nothing to run a cell in; there are: boxed, mine"),
        ):
            with pytest.raises(UsageError, match=rule):
                shell.run_line_magic("ns", line)
        for line, rule in (
            ("boxed --nonsense", "unrecognized arguments: --nonsense"),
            ("boxed --timeout soon", "invalid float value: 'soon'"),
            ("", "which container. There are: boxed, mine"),
            ("boxed 'open", "No closing quotation"),
        ):
            with pytest.raises(UsageError, match=rule):
                shell.run_cell_magic("ns", line, "true")
        del shell.user_ns["mine"]
    assert shell.run_line_magic("ns", "") == []
    with pytest.raises(UsageError, match="there are: none"):
        shell.run_line_magic("ns", "boxed true")


def test_nodes_of_a_lab_by_their_names(shell, capsys) -> None:
    lab = nslab.Topology()
    lab.link(lab.host("plain"), lab.host("contained", isolate="pid"))
    with lab.deploy(progress=lambda _: None):
        shell.run_cell_magic("ns", "plain", "hostname")
        shell.run_line_magic("ns", "contained hostname")
        assert capsys.readouterr().out == "plain\ncontained\n"
        assert {"plain", "contained"} <= set(names(shell))
        shell.user_ns["one"] = lab["plain"]
        shell.run_cell_magic("ns", "one", "ls /sys/class/net")
        assert capsys.readouterr().out.split() == ["eth0", "lo"]
        with pytest.raises(UsageError, match="did you mean 'plain'"):
            shell.run_cell_magic("ns", "plane", "true")
    with pytest.raises(UsageError, match="there is no container or node 'plain'"):
        shell.run_cell_magic("ns", "plain", "true")


def test_what_has_ended_is_not_among_the_names(shell) -> None:
    with nslab.process() as process, nslab.create("uts") as made, nslab.Container("boxed", isolate="uts") as box:
        shell.user_ns |= {"p": process, "made": made, "uts": made["uts"], "box": box, "number": 5}
        assert names(shell) == ["box", "boxed", "made", "p", "uts"]
        process.close()
        made.close()
        nslab.Container("other", isolate="uts").close()
        assert names(shell) == ["box", "boxed"]
        with pidfd_of(box.pid) as pidfd:
            os.kill(box.pid, signal.SIGKILL)
            assert has_ended(pidfd)
        assert names(shell) == [] == shell.run_line_magic("ns", "")
        with pytest.raises(UsageError, match="no container or node 'bux' here; there are: none"):
            shell.run_line_magic("ns", "bux true")
        with pytest.raises(nslab.DeadNamespace):
            shell.run_line_magic("ns", "box true")
        with nslab.Container("p", isolate="uts", hostname="again"):
            shell.run_line_magic("ns", "p test $(hostname) = again")
    shell.user_ns.clear()


def test_a_cell_where_its_program_is_missing(shell, tmp_path) -> None:
    """The message has the program and not the words that nslab puts around the cell."""
    with nslab.Container("empty", isolate="mnt pid", rootfs=tmp_path):
        for line, program in (("empty", "/bin/sh"), ("empty --python", "python3")):
            with pytest.raises(nslab.SyscallError, match=rf"posix_spawn\('{program}', the cell\) failed with ENOENT"):
                shell.run_cell_magic("ns", line, "true")


def test_a_line(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="uts", hostname="in-a-box"):
        assert shell.run_line_magic("ns", "boxed hostname; echo $((1 + 1))") is None
        assert capsys.readouterr().out == "in-a-box\n2\n"


def test_in_a_namespace_and_in_a_steered_process(shell, capsys) -> None:
    with nslab.create("uts", hostname="held") as made, nslab.process() as process:
        process.unshare("uts")
        process.sethostname("steered")
        shell.user_ns |= {"made": made, "uts": made["uts"], "p": process}
        for name in ("made", "uts", "p"):
            shell.run_cell_magic("ns", name, "hostname")
        assert capsys.readouterr().out == "held\nheld\nsteered\n"
        with pytest.raises(UsageError, match="setids"):
            shell.run_cell_magic("ns", "p --user 0", "true")
        shell.user_ns.clear()


def test_as_another_user(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="user"):
        shell.run_cell_magic("ns", "boxed --user 0", "id -u")
        assert capsys.readouterr().out == "0\n"


@pytest.mark.parametrize("line", ["--help", "-h", "boxed --help"])
def test_help(shell, capsys, line: str) -> None:
    shell.run_cell_magic("ns", line, "true")
    shown = capsys.readouterr().out
    for option in ("--python", "--timeout SECONDS", "--expect-fail"):
        assert option in shown
    shell.run_line_magic("ns", "--help")
    assert "lists the containers" in capsys.readouterr().out
    assert "--expect-fail" in shell.find_cell_magic("ns").__doc__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%ns b", ["boxed", "boxing"]),
        ("%ns box", ["boxed", "boxing"]),
        ("%%ns ", ["boxed", "boxing", "mine"]),
        ("%%ns m", ["mine"]),
        ("%%ns boxed --ex", ["--expect-fail"]),
        ("%%ns boxed --t", ["--timeout"]),
        ("%%ns --python bo", ["boxed", "boxing"]),
    ],
)
def test_tab_completes_names_and_options(shell, text: str, expected: list[str]) -> None:
    with nslab.Container("boxed", isolate="uts") as box, nslab.Container("boxing", isolate="uts"):
        shell.user_ns["mine"] = box
        with provisionalcompleter():
            found = {completion.text for completion in shell.Completer.completions(text, len(text))}
        assert sorted(match for match in found if match in ("boxed", "boxing", "mine") or match.startswith("--")) == expected
        shell.user_ns.clear()


def test_loading_it_twice_and_an_empty_notebook(shell) -> None:
    shell.run_line_magic("reload_ext", "nslab")
    assert shell.run_line_magic("ns", "") == []


def test_watch_shows_below_the_cell_what_that_changed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_cell("import nslab")
    with capture_output() as shown:
        shell.run_cell("with nslab.watch() as seen:\n    box = nslab.Container('watched', isolate='uts')", store_history=False)
    try:
        (found,) = shown.outputs
        assert "of container watched" in found.data["text/plain"]
        assert found.data["text/html"].startswith("<table>")
    finally:
        shell.user_ns["box"].close()
        InteractiveShell.clear_instance()
