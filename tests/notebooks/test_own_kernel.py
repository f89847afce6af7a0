"""Notebooks in a Linux kernel of their own: the provisioner as jupyter_client drives it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from nslab import procfs
from nslab.machines import kernelspecs
from nslab.machines.report import Check
from tests.notebooks.kernel import Kernel
from tests.own_kernels import is_alive, nothing_left, sockets_apart

pytestmark = [pytest.mark.notebook, pytest.mark.requires("tool:linux.uml", "tool:slirp4netns")]


def spec() -> KernelSpec:
    return KernelSpec(**kernelspecs.spec(kernelspecs.OWN))


@pytest.fixture(autouse=True)
def apart(monkeypatch) -> Iterator[None]:
    with sockets_apart() as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        yield


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


@pytest.fixture
def kernel(tmp_path, folder) -> Iterator[Kernel]:
    with nothing_left(), Kernel(tmp_path, spec=spec(), cwd=folder) as kernel:
        yield kernel


def test_a_notebook_in_it_works_as_any_other(kernel, folder) -> None:
    assert kernel.run("import os; print(os.uname().release, os.getuid())").ok().stdout.split()[1] == "0"
    assert kernel.run("os.uname().release").ok().data[0]["text/plain"] != repr(os.uname().release)
    cell = kernel.run(
        "import nslab\n"
        "with nslab.Container('web', isolate='uts pid ipc mnt net user cgroup', hostname='web') as web:\n"
        "    print(web.run('hostname').stdout)"
    )
    assert cell.ok().stdout.strip() == "web"
    kernel.run("open('made-inside', 'w').write('text')").ok()
    (folder / "helper.py").write_text("value = 5\n")
    assert kernel.run("import helper; helper.value").ok().data[0]["text/plain"] == "5"

    sleeping = kernel.begin("import time\nprint('begins')\ntime.sleep(100)")
    kernel.finish(sleeping, until="begins")
    kernel.interrupt()
    assert kernel.finish(sleeping).error == "KeyboardInterrupt"
    assert kernel.run("os.getuid()").ok().data[0]["text/plain"] == "0", "what was there is still there"

    kernel.run("open('/etc/made-inside', 'w').write('x')").ok()
    kernel.restart()
    cell = kernel.run("import os; print('os' in dir(), os.path.exists('/etc/made-inside'), os.path.exists('made-inside'))")
    assert cell.ok().stdout.split() == ["True", "False", "True"], "clean at each start, but for the notebook's folder"
    assert not cell.data, "a restart that was asked for is not explained"
    assert (folder / "made-inside").read_text() == "text"


def test_its_channels_are_encrypted_and_on_loopback(kernel) -> None:
    if hasattr(KernelManager, "transport_encryption"):
        assert kernel.manager.get_connection_info()["curve_publickey"]
    assert kernel.manager.ip == "127.0.0.1"
    assert kernel.manager.session.key


@pytest.mark.parametrize("victim", ["linux.uml", "slirp4netns"])
def test_after_a_death_the_next_one_says_what_happened_and_how_to_go_on(kernel, victim) -> None:
    before = [kernel.pid, *procfs.descendants(kernel.pid)]
    os.kill(next(pid for pid in before if procfs.stat(pid).name == victim), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while kernel.manager.is_alive():
        assert time.monotonic() < deadline
    kernel.restart(now=True)  # as Jupyter does when it notices
    assert not [pid for pid in before if is_alive(pid)]
    cell = kernel.run("1 + 1").ok()
    told, result = (data["text/plain"] for data in cell.data)
    assert "was ended by SIGKILL" in told
    assert "run them again, from the top" in told
    assert result == "2"
    assert [data["text/plain"] for data in kernel.run("3").ok().data] == ["3"], "once"


def test_a_kernel_that_does_not_boot_is_an_error_that_says_why(tmp_path, folder, monkeypatch) -> None:
    program = tmp_path / "linux.uml"
    program.write_text("#!/bin/sh\necho 'no memory for the likes of you'; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = r"(?s)did not come up: the kernel ended with status 3.*no memory for the likes of you"
    with nothing_left(), pytest.raises(RuntimeError, match=said):
        Kernel(tmp_path, spec=spec(), cwd=folder)


def test_kernels_are_offered_where_they_can_work(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", f"{tmp_path}/share/jupyter")
    yes, no = Check("x", "yes", ""), Check("x", "no", "it cannot", "do this")
    kernels = tmp_path / "share/jupyter/kernels"

    def offered(**checks: Check) -> set[str]:
        offers = kernelspecs.install(prefix=str(tmp_path), **checks)
        assert {offer.name for offer in offers if offer.installed} == {path.name for path in kernels.glob("nslab*")}
        assert all((offer.why, offer.remedy) == ("it cannot", "do this") for offer in offers if not offer.installed)
        return {path.name for path in kernels.glob("*")}

    assert offered(isolation=yes, own=yes) == {"nslab", "nslab-own-kernel"}
    assert offered(isolation=no, own=yes) == {"nslab-own-kernel"}
    assert offered(isolation=yes, own=no) == {"nslab"}
    kernelspecs.install(isolation=no, own=yes, prefix=str(tmp_path), default=True)
    assert '"nslab-own-kernel"' in (kernels / "python3/kernel.json").read_text()
