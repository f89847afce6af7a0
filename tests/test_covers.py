"""Masks and read-only paths: what lies over a path of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

import nslab
from nslab import ops
from tests.test_ops_shell import orders


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a secret file, a secret folder, and links that would lead out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("the machine's")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "inner").write_text("secret")
    (root / "file").write_text("secret")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    return root


def test_a_masked_file_is_empty_and_a_masked_folder_too(tree: Path) -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        process.do(ops.Mask(("/file", "/folder", "/nowhere"), root=str(tree)))
        assert process.run(["cat", f"{tree}/file"]).check().stdout == ""
        assert process.run(["ls", "-A", f"{tree}/folder"]).check().stdout == ""
        assert process.run(["touch", f"{tree}/folder/new"]).returncode != 0
    assert (tree / "file").read_text() == (tree / "folder" / "inner").read_text() == "secret"


@pytest.mark.parametrize("link", ["out", "up"])
@pytest.mark.parametrize("op", [ops.Mask, ops.ReadOnly])
def test_d16_a_link_below_the_root_leads_nowhere_else(tree: Path, link: str, op: type[ops.Mask] | type[ops.ReadOnly]) -> None:
    with nslab.process() as process:
        process.unshare("mnt")
        before = process.read("/proc/self/mountinfo")
        process.do(op((f"/{link}/file", f"/{link}"), root=str(tree)))
        assert process.read("/proc/self/mountinfo") == before


@pytest.mark.parametrize("instead", ["a link to a file", "a file", "another device"])
def test_d03_a_mask_is_the_null_device_or_nothing(tree: Path, instead: str) -> None:
    """In a root of its own, whose /dev/null is not what it seems."""
    secret = tree / "folder" / "inner"
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount("tmpfs", "/dev", "tmpfs")
        if instead == "another device":
            process.run(["touch", "/dev/null"], check=True)
            process.mount("/proc/1/../mounts", "/dev/null", None, "MS_BIND")
        elif instead == "a file":
            process.run("echo text > /dev/null", check=True)
        else:
            process.run(["ln", "-s", str(secret), "/dev/null"], check=True)
        with pytest.raises(nslab.NslabError, match="not the character device 1:3"):
            process.do(ops.Mask(("/file",), root=str(tree)))
        assert process.run(["cat", f"{tree}/file"]).check().stdout == "secret"


def test_a_read_only_path_is_so_with_all_below(tree: Path) -> None:
    inner = str(tree / "folder")
    with nslab.process() as process:
        process.unshare("mnt")
        process.mount("tmpfs", inner, "tmpfs")
        process.do(ops.ReadOnly(("/", "/nowhere"), root=str(tree)))
        for path in (tree, inner):
            refused = process.run(["touch", f"{path}/new"])
            assert "Read-only file system" in refused.stderr


def test_the_script_of_a_mask(tree: Path) -> None:
    def steer(process: nslab.Process) -> None:
        process.unshare("mnt")
        process.do(ops.Mask(("/file", "/folder", "/nowhere"), root=str(tree)))
        process.do(ops.ReadOnly(("/", "/nowhere"), root=str(tree)))

    lines = orders(steer)
    assert [line for line in lines if f"{tree}/folder ro" in line] and [line for line in lines if f"{tree} ro" in line]


def test_d05_what_is_written_to_proc_is_written_to_proc(tree: Path) -> None:
    """A fake /proc, and a file over one of the real /proc, would have the write end up elsewhere."""
    victim = tree / "file"
    with nslab.process() as process:
        process.unshare("uts mnt")
        process.mount(str(victim), "/proc/sys/kernel/domainname", None, "MS_BIND")
        with pytest.raises(nslab.SyscallError, match="EXDEV"):
            process.write("/proc/sys/kernel/domainname", "redirected")
        process.umount("/proc/sys/kernel/domainname")
        process.mount("tmpfs", "/proc", "tmpfs")
        process.run(f"mkdir -p /proc/self; ln -s {victim} /proc/self/comm", check=True)
        with pytest.raises(nslab.SyscallError, match="EXDEV"):
            process.write("/proc/self/comm", "redirected")
    assert victim.read_text() == "secret"
