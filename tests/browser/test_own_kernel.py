"""A Linux kernel of one's own in JupyterLab: its tile, a notebook in it, the stop button, a restart, and deaths."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from nslab import procfs
from nslab.machines.kernelspecs import EXPLAINED, HERE, OWN, SHOWN
from tests.browser.conftest import serving
from tests.browser.processes import Watched, descendants, wait_until
from tests.own_kernels import nothing_left

pytestmark = [pytest.mark.requires("tool:chromium", "tool:linux.uml", "tool:slirp4netns"), pytest.mark.timeout(240)]

CELLS = (
    "import os; os.uname().release, os.getuid()",
    "import nslab\nwith nslab.Container('web', isolate='uts pid net', hostname='web') as web:\n"
    "    print(web.run('hostname; id -u'))",
    "print('sleeps', flush=True)\nimport time; time.sleep(1000)",
    "1 + 1",
)


def choose(notebook, name: str) -> None:
    """Another kernel for the notebook, by the button with the kernel's name and the dialog behind it."""
    page = notebook.page
    page.locator(".jp-KernelName:visible").click()
    page.locator(".jp-Dialog select").select_option(label=name)
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(".jp-KernelName:visible", has_text=name).wait_for(timeout=60_000)
    notebook.kernel_id = notebook.wait_for_kernel()


def outputs(notebook, index: int) -> str:
    found = ""
    for output in notebook.cells()[index].get("outputs", []):
        found += (
            "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", "")) + output.get("ename", "")
        )
    return found


def of_the_kernel(server, name: str) -> int:
    """The process of this name below the server's warden."""
    found = [pid for pid in descendants(server.process.pid) if procfs.stat(pid).name == name]
    assert found
    return min(found)


def test_the_launcher_offers_both_and_says_what_they_are(server, open_notebook, screenshots) -> None:
    page = open_notebook(server.write("launcher.ipynb", "1")).page
    page.evaluate("() => jupyterapp.commands.execute('launcher:create')")
    for name in (HERE, OWN):
        tile = page.locator('.jp-LauncherCard[data-category="Notebook"]', has_text=SHOWN[name])
        tile.wait_for()
        assert tile.locator("img").evaluate("image => image.complete && image.naturalWidth > 0"), "its icon"
        assert tile.get_attribute("title") == EXPLAINED[name]
        page.locator(".nslab-explanation", has_text=EXPLAINED[name]).wait_for()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", theme)
        page.locator(f'body[data-jp-theme-light="{str("Light" in theme).lower()}"]').wait_for(state="attached")
        page.screenshot(path=screenshots / f"own-kernel-launcher-{theme.split()[1].lower()}.png")


def test_a_notebook_is_switched_to_it_stopped_and_restarted(server, open_notebook, screenshots) -> None:
    with nothing_left(5, server.sockets):
        notebook = open_notebook(server.write("own.ipynb", *CELLS))
        choose(notebook, SHOWN[OWN])
        for index in (0, 1):
            notebook.run(index)
        release = outputs(notebook, 0)
        assert os.uname().release not in release
        assert release.endswith(", 0)")
        assert outputs(notebook, 1).split() == ["web", "0"]
        notebook.run(2, wait=False)
        wait_until(lambda: "sleeps" in outputs(notebook, 2), 60, notebook.cells)
        notebook.page.locator('[data-jp-item-name="interrupt"]:visible').click()
        wait_until(lambda: "KeyboardInterrupt" in outputs(notebook, 2), 60, notebook.cells)
        notebook.run(3)
        notebook.screenshots(screenshots, "own-kernel")
        before = Watched({of_the_kernel(server, "linux.uml"), of_the_kernel(server, "slirp4netns")})
        notebook.command("notebook:restart-kernel", wait=False)
        notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
        assert before.left(20) == []
        notebook.wait_for_kernel()
        notebook.run(0)
        assert notebook.cells()[0]["execution_count"] == 1
        server.api(f"sessions/{server.api('sessions')[0]['id']}", "DELETE")


def test_a_death_is_noticed_and_explained(server, open_notebook, screenshots) -> None:
    notebook = open_notebook(server.write("death.ipynb", *CELLS))
    choose(notebook, SHOWN[OWN])
    notebook.run(0)
    everything = Watched(descendants(of_the_kernel(server, "nslab-warden")))
    os.kill(of_the_kernel(server, "linux.uml"), signal.SIGKILL)
    assert everything.left(2) == []
    dialog = notebook.page.locator(".jp-Dialog", has_text="appears to have died")
    dialog.wait_for(timeout=30_000)
    notebook.page.screenshot(path=screenshots / "own-kernel-died.png")
    dialog.locator(".jp-mod-accept").click()
    notebook.wait_for_kernel()
    notebook.run(3)
    assert "was ended by SIGKILL" in outputs(notebook, 3)
    assert "run them again, from the top" in outputs(notebook, 3)
    notebook.screenshots(screenshots, "own-kernel-explained")


def test_a_boot_is_shown_and_one_that_fails_is_a_dialog_that_says_why(server, open_notebook, screenshots) -> None:
    notebook = open_notebook(server.write("fails.ipynb", *CELLS))
    program = server.first / "linux.uml"
    program.write_text("#!/bin/sh\nread go <$0.go; echo 'no memory for the likes of you'; exit 3\n")
    program.chmod(0o755)
    os.mkfifo(f"{program}.go")
    try:
        notebook.page.locator(".jp-KernelName:visible").click()
        notebook.page.locator(".jp-Dialog select").select_option(label=SHOWN[OWN])
        notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
        booting = notebook.page.locator(".Toastify__toast", has_text="A Linux kernel of your own is booting")
        booting.wait_for(timeout=60_000)
        notebook.page.screenshot(path=screenshots / "own-kernel-boots.png")
        Path(f"{program}.go").write_text("go\n")
        dialog = notebook.page.locator(".jp-Dialog", has_text="no memory for the likes of you")
        dialog.wait_for(timeout=60_000)
        lines = dialog.locator("pre").inner_text().splitlines()
        assert lines[0].endswith("did not come up: the kernel ended with status 3")
        assert lines[1:3] == ["its console said last:", "  no memory for the likes of you"]
        assert lines[3].startswith("What to do: start it again")
        booting.wait_for(state="detached")
        notebook.page.screenshot(path=screenshots / "own-kernel-fails.png")
        text = dialog.locator("pre")
        assert text.evaluate("pre => pre.scrollWidth <= pre.clientWidth"), "all of it is in sight"
    finally:
        program.unlink()
        os.unlink(f"{program}.go")


def test_when_the_server_is_killed_nothing_is_left(tmp_path) -> None:
    with serving(tmp_path) as server, nothing_left(2, server.sockets):
        server.api("kernels", "POST", {"name": OWN})
        everything = Watched(descendants(server.process.pid))
        assert of_the_kernel(server, "linux.uml")
        server.process.kill()
        assert everything.left(2) == []
