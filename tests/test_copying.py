"""Files into a container and out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import nslab

pytestmark = pytest.mark.requires("tool:busybox", "userns")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text("text")
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o4755)
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "locked").mkdir()
    (folder / "locked" / "file").write_text("x")
    (folder / "locked").chmod(0o555)
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize("options", [{}, {"hardened": True}, {"rootfs": "machine"}], ids=["plain", "hardened", "machine"])
def test_a_folder_goes_in_and_comes_out(tree: Path, tmp_path: Path, options: dict) -> None:
    with nslab.Container(isolate="pid mnt", **{"rootfs": "busybox", **options}) as box:
        box.copy_in(tree, "/tmp")
        box.copy_in(tree, "/tmp/named")
        assert (
            box.run("cat /tmp/tree/deep/er/file /tmp/named/deep/er/file; readlink /tmp/tree/link").stdout
            == "texttext/etc/passwd\n"
        )
        assert box.run("stat -c '%u %g %a' /tmp/tree/script; ls /tmp/tree").stdout.split() == (
            ["0", "0", "4755", "deep", "link", "locked", "script"]
        )
        box.copy_out("/tmp/tree", tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "deep" / "er" / "file").read_text() == "text" and os.readlink(out / "link") == "/etc/passwd"
    info = (out / "script").stat()
    assert (info.st_uid, info.st_gid, oct(info.st_mode & 0o7777)) == (os.geteuid(), os.getegid(), "0o755"), (
        "setuid stays inside"
    )
    assert oct((out / "locked").stat().st_mode & 0o777) == "0o555"


def test_a_large_file_and_its_name(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(data)
    with nslab.Container(isolate="mnt", rootfs="busybox") as box:
        box.copy_in(str(tmp_path / "large"), "/root/")
        box.copy_in(tmp_path / "large", "/root/renamed")
        assert box.run("cat /root/large /root/renamed | wc -c").stdout.strip() == str(2 * len(data))
        (tmp_path / "out").mkdir()
        box.copy_out("/root/renamed", tmp_path / "out")
        box.copy_out("/root/renamed", tmp_path / "large")  # in the place of the old one
        box.copy_out("/etc/passwd", tmp_path / "users")
    assert (tmp_path / "out" / "renamed").read_bytes() == (tmp_path / "large").read_bytes() == data
    assert (tmp_path / "users").read_text().startswith("root:x:0:0")


def test_no_symlink_leads_out(tree: Path, tmp_path: Path) -> None:
    """Links inside that would lead to the machine's files, and a link here in the way of what comes out."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("the machine's")
    with nslab.Container(isolate="mnt", rootfs="busybox") as box:  # with the machine's processes in /proc
        box.run(
            f"ln -s {secret} /out; ln -s /proc/1/root{secret} /magic; ln -s /proc/{os.getpid()}/root/{secret} /ours", check=True
        )
        for path in ("/out/file", "/magic/file", "/ours/file", "/out/../../../../../../.." + str(secret) + "/file"):
            with pytest.raises(nslab.NslabError):
                box.copy_out(path, tmp_path / "stolen")
        for path in ("/magic/file2", "/ours/file2", "/ours"):
            with pytest.raises(nslab.NslabError):
                box.copy_in(tree / "script", path)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "trap").symlink_to(secret / "file")
        box.run("mkdir /trap && echo changed > /trap/file", check=True)
        box.copy_out("/trap", tmp_path / "folder")
    assert not (tmp_path / "stolen").exists()
    assert (secret / "file").read_text() == "the machine's" and os.listdir(secret) == ["file"]
    assert (tmp_path / "folder" / "trap" / "file").read_text() == "changed\n"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with nslab.Container(isolate="mnt", rootfs="busybox") as box:
        for source, target, rule in (
            ("/nowhere", "/tmp", "source: there is no /nowhere on this machine"),
            (tmp_path, "/nowhere/else", "target: /nowhere/else cannot be written inside: No such"),
            ("", "/tmp", "source: is empty"),
        ):
            with pytest.raises(nslab.SpecError, match=rule):
                box.copy_in(source, target)
        for source, target, rule in (
            ("/nowhere", tmp_path, "source: there is no /nowhere inside"),
            ("/etc/passwd", tmp_path / "no" / "where", "target: there is no folder"),
            ("/dev/null", tmp_path, "source: /dev/null is neither"),
            ("/", tmp_path, "source: '/' has no name"),
        ):
            with pytest.raises(nslab.SpecError, match=rule):
                box.copy_out(source, target)
    assert list(tmp_path.iterdir()) == []
    with nslab.Container(isolate="uts") as box, pytest.raises(nslab.SpecError, match="the machine's own files"):
        box.copy_in("/etc/passwd", "/tmp")


@pytest.mark.requires("ordinary")
def test_what_may_not_be_read_is_said(tree: Path) -> None:
    (tree / "script").chmod(0)
    with nslab.Container(isolate="mnt", rootfs="busybox") as box:
        with pytest.raises(nslab.SpecError, match="source: script cannot be read: Permission denied"):
            box.copy_in(tree, "/tmp")
        assert box.run("true").returncode == 0


def test_a_container_that_ended_takes_nothing(tree: Path) -> None:
    box = nslab.Container(isolate="mnt", rootfs="busybox")
    box.close()
    with pytest.raises(nslab.DeadNamespace):
        box.copy_in(tree, "/tmp")
