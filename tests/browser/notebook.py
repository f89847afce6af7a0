"""A notebook in JupyterLab in a browser: opened, run, read and photographed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser.jupyter import Server

if TYPE_CHECKING:  # slow to import, and every tier collects this folder
    from playwright.sync_api import Page

TALLEST = 16_000  # pixels that Chromium still draws at once
PAGE = 1_600  # pixels of one picture that a person can look at


class Notebook:
    """One notebook, open in JupyterLab with its kernel running."""

    def __init__(self, server: Server, page: Page, name: str):
        self.server, self.page, self.name = server, page, name
        for session in server.api("sessions"):
            if session["path"] == name:
                server.api(f"sessions/{session['id']}", "DELETE")
        # A workspace of its own: none of the tabs of the test before.
        page.goto(f"{server.url}/lab/workspaces/{secrets.token_hex(4)}/tree/{name}?token={server.token}")
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.sessionContext", timeout=60_000)
        self.kernel_id = self.wait_for_kernel()

    @property
    def kernel_pid(self) -> int:
        return self.server.kernel_pid(self.kernel_id)

    def wait_for_kernel(self) -> str:
        """The id of the notebook's kernel, once that answers."""
        kernel: str = self.page.evaluate(
            """async () => {
                const w = jupyterapp.shell.currentWidget;
                await w.context.ready;
                await w.sessionContext.ready;
                await w.sessionContext.session.kernel.info;
                return w.sessionContext.session.kernel.id;
            }"""
        )
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=60_000
        )
        return kernel

    def command(self, name: str, *, wait: bool = True) -> Any:
        """One of JupyterLab's commands; what it gives, or at once."""
        promise = f"jupyterapp.commands.execute({name!r})"
        return self.page.evaluate(f"async () => await {promise}" if wait else f"() => {{ {promise}; }}")

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell, as a person does who clicks into it and presses the button."""
        self.page.evaluate("index => { jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", index)
        self.command("notebook:run-cell", wait=wait)

    def run_all(self, *, wait: bool = True) -> None:
        self.command("notebook:run-all-cells", wait=wait)

    def cells(self) -> list[dict[str, Any]]:
        """The notebook as JupyterLab has it now: in the format of the file."""
        found: list[dict[str, Any]] = self.page.evaluate("() => jupyterapp.shell.currentWidget.context.model.toJSON().cells")
        return found

    def errors(self) -> list[str]:
        """What went wrong in cells that do not say they are meant to (the tag raises-exception)."""
        return [
            f"cell {number}: {output['ename']}: {output['evalue']}"
            for number, cell in enumerate(self.cells())
            for output in cell.get("outputs", [])
            if output["output_type"] == "error" and "raises-exception" not in cell["metadata"].get("tags", [])
        ]

    def theme(self, name: str) -> None:
        self.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        light = str("Light" in name).lower()
        self.page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached")

    def screenshots(self, folder: Path, stem: str) -> None:
        """The whole notebook, cut into pages: the window is made as tall as the notebook is.

        Without NSLAB_SCREENSHOTS nobody looks at them: they would take half of the time that a test has.
        """
        if not os.environ.get("NSLAB_SCREENSHOTS"):
            return self.painted()
        self.page.evaluate("() => jupyterapp.shell.collapseLeft()")
        size = self.page.viewport_size
        assert size
        width, height = size["width"], size["height"]
        for _ in range(2):  # cells that come into view get their real height
            height = self.page.evaluate(
                """() => {
                    const outer = jupyterapp.shell.currentWidget.node.querySelector('.jp-WindowedPanel-outer');
                    const below = window.innerHeight - outer.getBoundingClientRect().bottom;
                    const cells = outer.querySelectorAll('.jp-Cell');
                    outer.scrollTop = 0;
                    return Math.ceil(cells[cells.length - 1].getBoundingClientRect().bottom + below + 20);
                }"""
            )
            height = min(max(height, size["height"]), TALLEST)
            self.page.set_viewport_size({"width": width, "height": height})
            self.painted()
        for number, top in enumerate(range(0, height, PAGE), 1):
            clip = {"x": 0, "y": top, "width": width, "height": min(PAGE, height - top)}
            self.page.screenshot(path=folder / f"{stem}-{number}.png", clip=clip)
        self.page.set_viewport_size(size)

    def painted(self) -> None:
        self.page.evaluate(
            """async () => {
                await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
                for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame);
                await new Promise(done => setTimeout(done, 150));
            }"""
        )
