"""%ns and %%ns, in a real IPython shell."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import nslab


@pytest.fixture
def shell(tmp_path, monkeypatch) -> InteractiveShell:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    nslab.load_ipython_extension(shell)
    return shell


def test_a_cell_runs_inside(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="uts pid mnt", hostname="in-a-box"):
        shell.run_cell_magic("ns", "boxed", "hostname\necho err >&2")
        output = capsys.readouterr()
        assert (output.out, output.err) == ("in-a-box\n", "err\n")
        shell.run_cell_magic("ns", "boxed --python", "import os\nprint(os.getpid() < 100)")
        assert capsys.readouterr().out == "True\n"


def test_a_cell_that_fails_raises_unless_it_was_to(shell, capsys) -> None:
    with nslab.Container("boxed", isolate="uts"):
        with pytest.raises(nslab.CommandError, match="status 3"):
            shell.run_cell_magic("ns", "boxed", "exit 3")
        shell.run_cell_magic("ns", "boxed --expect-fail", "exit 3")
        with pytest.raises(nslab.CommandError, match="expected to fail"):
            shell.run_cell_magic("ns", "boxed --expect-fail", "true")
        with pytest.raises(nslab.CommandTimeout):
            shell.run_cell_magic("ns", "boxed --timeout 0.1", "sleep 1000")


def test_a_variable_names_a_container_too_and_the_unknown_is_named(shell) -> None:
    with nslab.Container("boxed", isolate="uts") as box:
        shell.user_ns["mine"] = box
        assert shell.run_line_magic("ns", "mine") is box
        assert shell.run_line_magic("ns", "") == [box]
        with pytest.raises(UsageError, match="no container 'other' here; there are: boxed"):
            shell.run_line_magic("ns", "other")
        with pytest.raises(UsageError, match="unrecognized arguments: --nonsense"):
            shell.run_cell_magic("ns", "boxed --nonsense", "true")
    assert shell.run_line_magic("ns", "") == []
