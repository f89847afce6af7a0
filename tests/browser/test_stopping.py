"""The stop button and a restart, as a person presses them: nothing of ours is left running."""

import pytest

from tests.browser.processes import Watched, command_line, descendants, wait_until
from tests.crash.oracle import is_standby

pytestmark = pytest.mark.requires("tool:chromium", "userns")


def running(notebook, command: str) -> set[int]:
    """The processes below the notebook's kernel that run ``command``."""
    return {pid for pid in descendants(notebook.kernel_pid) if command_line(pid) == command}


def but_standbys(notebook) -> set[int]:
    """The processes below the kernel, without the children that spawners keep ahead: each request may take one."""
    return {pid for pid in descendants(notebook.kernel_pid) if not is_standby(pid)}


def test_the_stop_button_leaves_no_child(server, open_notebook):
    first, second = "import nslab; nslab.run('true', isolate='uts pid')", "nslab.run('sleep 1000', isolate='uts pid')"
    notebook = open_notebook(server.write("stop.ipynb", first, second))
    notebook.run(0)
    assert notebook.errors() == []
    helpers = but_standbys(notebook)  # they wait for the next call
    notebook.run(1, wait=False)
    wait_until(lambda: running(notebook, "sleep 1000"), 30, notebook.cells)
    came = Watched(but_standbys(notebook) - helpers)
    notebook.page.locator('[data-jp-item-name="interrupt"]:visible').click()
    assert came.left(2) == []
    wait_until(lambda: notebook.cells()[1]["execution_count"], 10)
    assert but_standbys(notebook) == helpers


def test_a_restart_leaves_nothing(server, open_notebook):
    notebook = open_notebook(
        server.write(
            "restart.ipynb",
            "import nslab\n"
            "box = nslab.Container('box', isolate='uts pid mnt').__enter__()\n"
            "box.popen('setsid sleep 1001 & sleep 1002')\n"
            "loose = nslab.Container('loose', isolate='uts').__enter__()\n"
            "loose.popen('setsid sleep 1003 & sleep 1004')\n",
        )
    )
    notebook.run_all()
    assert notebook.errors() == []
    for number in range(1001, 1005):
        wait_until(lambda command=f"sleep {number}": running(notebook, command), 10)
    everything = Watched(descendants(notebook.kernel_pid))
    notebook.command("notebook:restart-kernel", wait=False)
    notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
    assert everything.left(10) == []
    notebook.wait_for_kernel()
