"""The recipe of the image, how it is read, and that the limits under which it is tried are as strict as they say.

The image itself is built and tried by `make binder-test`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.binder import confine, image, recipe
from tests.binder.memory import limited
from tests.helpers import ROOT

DOCKERFILE = ROOT / "binder" / "Dockerfile"


def test_the_recipe_is_read():
    """Its arguments and variables are where a shell would see them; it ends as who Binder wants."""
    read = recipe.read(DOCKERFILE, {"NB_USER": "alice"})
    assert read.base.startswith("debian:")
    assert [step.does for step in read.steps].count("COPY") == 1
    assert "user-mode-linux slirp4netns" in read.steps[0].text and "\\" not in read.steps[0].text
    assert read.user == "alice" and read.env["HOME"] == "/home/alice" and "NB_USER" not in read.env
    last = read.steps[-1]
    assert (last.user, last.folder, last.env["NB_UID"]) == ("root", read.folder, "1000")
    assert read.command[:2] == ("jupyter", "lab")


@pytest.mark.unit
def test_what_is_not_known_is_refused(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian:bookworm\n# a comment\nRUN one \\\n# and one in between\n  && two\nADD x /y\n")
    with pytest.raises(ValueError, match="ADD"):
        recipe.read(path)
    path.write_text(path.read_text().replace("ADD", "COPY"))
    assert [step.text for step in recipe.read(path).steps] == ["one && two", "x /y"]


def test_editors_build_the_same_image():
    """devcontainer.json may have comments; its paths are relative to itself."""
    path = ROOT / ".devcontainer" / "devcontainer.json"
    content = json.loads(re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.MULTILINE))
    assert (path.parent / content["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert content["remoteUser"] == recipe.read(DOCKERFILE).user


def test_nothing_of_the_checkout_is_lost_or_too_much():
    """What git ignores an engine ignores too: an image has no environment, cache or history in it."""
    ignored = set(Path(ROOT, ".dockerignore").read_text().split())
    assert {".git", ".venv*", "build", "dist"} <= ignored


@pytest.mark.requires("root", "tool:bwrap", "tool:setpriv")
def test_under_the_limits_nothing_is_allowed():
    """Asked by a program of its own, on this machine's files."""
    here = dataclasses.replace(recipe.read(DOCKERFILE), folder="/")
    everything = image.Image(here, Path("/"), size=0, seconds=0)
    assert "clone3 ENOSYS" in confine.output(everything, ["/usr/bin/python3", "-c", confine.FORBIDDEN])


@pytest.mark.requires("root", "tool:bwrap", "tool:setpriv")
def test_under_the_limits_memory_ends():
    """Who takes more than there is is killed, that is counted, and the cgroup goes; less is measured."""
    here = dataclasses.replace(recipe.read(DOCKERFILE), folder="/")
    everything = image.Image(here, Path("/"), size=0, seconds=0)
    take = "len(bytearray(b'x') * ({} << 20))"
    found = []
    for megabytes in (60, 160):
        with contextlib.ExitStack() as stack:
            try:
                memory = stack.enter_context(limited(100 << 20))
            except OSError as error:
                pytest.skip(f"no cgroup can be made that has a limit of memory: {error}")
            status = confine.start(everything, ["/usr/bin/python3", "-c", take.format(megabytes)], memory=memory).wait()
            found.append((status, memory.kills, memory.peak >> 20))
        assert not memory.folder.exists()
    (status, kills, peak), (status_of_more, kills_of_more, most) = found
    assert (status, kills) == (0, 0) and 60 <= peak < 100
    assert status_of_more and kills_of_more == 1 and most <= 100
