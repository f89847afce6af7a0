"""Root filesystems: what is in sight inside, what is not any more, and that what they are made of stays as it is."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nslab
import nslab.spawner
from nslab import ops
from tests import roots

pytestmark = pytest.mark.requires("tool:busybox", "userns")

MAKERS: dict[str, Callable[[Path], object]] = {
    "machine": lambda at: "machine",
    "busybox": lambda at: "busybox",
    "folder": lambda at: roots.folder(at / "root"),
    "tar": roots.tar,
    "image": roots.image,
}


def listing(folder: Path) -> list[str]:
    return sorted(f"{path} {path.lstat().st_mtime_ns} {path.lstat().st_mode:o}" for path in folder.rglob("*"))


@pytest.fixture(params=MAKERS)
def rootfs(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    return MAKERS[request.param](tmp_path)


@pytest.mark.parametrize("kinds", ["mnt", "uts pid mnt", "user mnt", "all"])
def test_each_root_is_complete_and_private(rootfs: object, kinds: str, tmp_path: Path) -> None:
    before = listing(tmp_path)
    with nslab.Container(isolate=kinds, rootfs=rootfs) as box:
        box.run("echo x > /new; echo y > /etc/new; echo z > /dev/null; echo t > /tmp/file; cat /new /etc/new", check=True)
        assert box.run("cat /new /etc/new /tmp/file").stdout == "x\ny\nt\n"
        assert box.run("pwd").stdout == "/\n"
        mounts = [line.split() for line in box.run(["cat", "/proc/self/mountinfo"], check=True).lines]
        types = {line[4]: line[line.index("-") + 1] for line in mounts}
        assert types["/"] in ("overlay", "tmpfs")
        assert (types["/proc"], types["/sys"], types["/dev"], types["/tmp"], types["/run"]) == (
            "proc", "sysfs", "tmpfs", "tmpfs", "tmpfs",
        )  # fmt: skip
        if "pid" in kinds or kinds == "all":
            assert int(box.run(["readlink", "/proc/self"]).stdout) < 64
    assert not os.path.exists("/new") and not os.path.exists("/etc/new")
    assert listing(tmp_path) == before
    assert nslab.run("cat /new", isolate=kinds, rootfs=rootfs).returncode != 0, "gone with the container"


def test_the_old_root_is_out_of_sight(tmp_path: Path) -> None:
    """No mount of it is left: only what was asked for comes from the machine."""
    with nslab.Container(isolate="all", rootfs="busybox") as box:
        lines = box.run(["cat", "/proc/self/mountinfo"], check=True).lines
        foreign = [
            line for line in lines if line.split(" - ")[1].split()[0] not in ("tmpfs", "proc", "sysfs", "devpts", "mqueue")
        ]
        assert {line.split()[3] for line in foreign} <= {"/null", "/zero", "/full", "/random", "/urandom", "/tty", "/"}
        assert box.run(["ls", str(tmp_path)]).returncode != 0
        assert os.readlink(f"/proc/{box.pid}/cwd") == "/"


def test_the_devices_are_the_harmless_ones() -> None:
    with nslab.Container(isolate="pid mnt", rootfs="busybox") as box:
        names = set(box.run(["ls", "/dev"]).stdout.split())
        assert names == {
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "tty",
            "ptmx",
            "pts",
            "shm",
            "fd",
            "stdin",
            "stdout",
            "stderr",
        }
        assert box.run("head -c 3 /dev/zero | wc -c; exec 3<>/dev/ptmx; ls /dev/pts", check=True).lines == ["3", "0", "ptmx"]


IN_A_TERMINAL = "tty; echo found > $(tty); test -O $(tty) && echo owned; echo $(tty < /dev/tty)"


@pytest.mark.parametrize("rootfs", ["machine", "busybox"])
@pytest.mark.parametrize("options", [{"isolate": "mnt user"}, {"isolate": "all"}, {"hardened": True}], ids=str)
def test_a_terminal_has_a_name_inside(rootfs: str, options: dict[str, object]) -> None:
    """It is one of the devpts that is in sight there, and its user's."""
    expected = ["/dev/pts/0", "found", "owned", "/dev/tty"]
    assert nslab.run(IN_A_TERMINAL, rootfs=rootfs, tty=True, timeout=10, **options).lines == expected
    with nslab.Container(rootfs=rootfs, **options) as box:
        assert box.run(IN_A_TERMINAL, tty=True, timeout=10).lines == expected
        assert box.run("cat; tty", tty=True, timeout=10, input="typed\n\x04").lines == ["typed", "typed", "/dev/pts/0"]
        assert box.run(["ls", "/dev/pts"]).lines == ["ptmx"], "nothing is left"
        if "hardened" not in options:
            joined = nslab.run(IN_A_TERMINAL, join={"user": box, "mnt": box}, tty=True, timeout=10)
            assert joined.lines == expected
            assert box.namespaces["mnt"].run(IN_A_TERMINAL, tty=True, timeout=10).lines == expected


@pytest.mark.requires("root")
def test_a_terminal_belongs_to_the_user_of_the_command() -> None:
    options = {"isolate": "all", "uid_map": "subordinate", "rootfs": "busybox"}
    assert nslab.run(IN_A_TERMINAL, user=1, tty=True, timeout=10, **options).lines[1:3] == ["found", "owned"]


@pytest.mark.parametrize("ptmx", ["mkfifo /dev/ptmx", "ln -s /dev/zero /dev/ptmx", "echo no > /dev/ptmx", "true"])
def test_what_only_looks_like_a_ptmx_is_not_taken(ptmx: str) -> None:
    with nslab.Container(isolate="pid mnt user", rootfs="busybox") as box:
        box.run(f"rm /dev/ptmx; {ptmx}", check=True)
        shown = box.run("test -t 0 && tty; cat", tty=True, timeout=10, input="typed\n\x04").lines
        assert sorted(shown) == ["not a tty", "typed", "typed"]


def test_a_machine_without_a_root_of_its_own_keeps_the_terminals_that_it_has() -> None:
    script = "stat -c %d /dev/pts; stat -L -c %d /dev/fd/0"
    assert len(set(nslab.run(script, isolate="mnt pid user", tty=True).lines)) == 1
    with nslab.Container(isolate="mnt user") as box:
        assert len({*box.run(script, tty=True).lines, str(os.stat("/dev/pts").st_dev)}) == 1


def test_sys_shows_the_network_namespace_of_the_container() -> None:
    everywhere = set(os.listdir("/sys/class/net"))
    assert set(nslab.run(["ls", "/sys/class/net"], isolate="mnt net", rootfs="busybox").stdout.split()) == {"lo"}
    assert set(nslab.run(["ls", "/sys/class/net"], isolate="mnt", rootfs="busybox").stdout.split()) == everywhere


def test_the_machine_can_be_changed_inside_only() -> None:
    name = next(entry for entry in ("/etc/hostname", "/etc/passwd") if os.path.exists(entry))
    with nslab.Container(isolate="mnt", rootfs="machine") as box:
        box.run(f"rm {name}; mkdir /etc/folder; echo mine > {name}", check=True)
        assert box.run(["cat", name]).stdout == "mine\n"
    assert Path(name).read_text() != "mine\n"
    assert not os.path.exists("/etc/folder")


@pytest.mark.requires("root")
def test_the_machine_s_files_are_copied_when_they_are_written() -> None:
    """As root any file; an ordinary user may not write to what belongs to others, but replace it."""
    with nslab.Container(isolate="mnt", rootfs="machine") as box:
        assert box.run("echo line >> /etc/passwd; tail -n1 /etc/passwd", check=True).stdout == "line\n"
    assert "line\n" not in Path("/etc/passwd").read_text()


def test_the_layers_of_an_image_and_what_they_take_away(tmp_path: Path) -> None:
    second = roots.layer(
        {"a": "second", "gone": "x", "full/old": "x", "full/deep/old": "x", "up": ("link", "etc"), "h": ("hard", "a")}
    )
    third = roots.layer({"full/.wh..wh..opq": "", "full/new": "third", ".wh.gone": "", "a": "third", "up/through": "link"})
    with nslab.Container(isolate="mnt", rootfs=roots.image(tmp_path, second, third)) as box:
        assert box.run("cat /a /h; ls /full; ls /gone; cat /etc/through /etc/name").stdout == "thirdsecondnew\nlinkfolder\n"


def by_zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.requires("tool:zstd")
def test_archives_and_layers_of_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = roots.layer({"added": "by zstd"}) + bytes(1 << 20)  # more zeros than tar reads
    (tmp_path / "plain").mkdir()
    archive = tmp_path / "root.tar.zst"
    archive.write_bytes(by_zstd(roots.tar(tmp_path / "plain", "root.tar").read_bytes()))
    folder = roots.image(tmp_path, roots.layer({}), by_zstd(data))
    assert nslab.run("cat /etc/name", isolate="mnt", rootfs=archive).stdout == "folder\n"
    assert nslab.run("cat /added", isolate="mnt", rootfs=folder).stdout == "by zstd"
    broken = tmp_path / "broken.tar.zst"
    broken.write_bytes(by_zstd(data)[:-9])
    with pytest.raises(nslab.NslabError, match=r"broken\.tar\.zst cannot be unpacked"):
        nslab.run("true", isolate="mnt", rootfs=broken)
    monkeypatch.setenv("PATH", str(tmp_path))
    for rootfs in (archive, folder):
        with pytest.raises(nslab.Unavailable, match=r"(?s)the program zstd is missing.*apt-get install zstd"):
            nslab.run("true", isolate="mnt", rootfs=rootfs)


def test_what_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    folder = roots.image(tmp_path, roots.layer({"added": "later"}))
    for blob in [*folder.glob("blobs/sha256/*")]:
        content = blob.read_bytes()
        if content == b"{}":  # the configuration, which nobody reads
            continue
        changed = content[:-1] + bytes([content[-1] ^ 1])
        blob.write_bytes(changed)
        digests = f"{blob.name} is damaged.*its digest is {hashlib.sha256(changed).hexdigest()}.*should be sha256:{blob.name}"
        with pytest.raises(nslab.NslabError, match=digests) as caught:
            nslab.run("true", isolate="mnt", rootfs=folder)
        assert "cannot be" not in str(caught.value)
        blob.write_bytes(content)
    assert nslab.run("cat /added", isolate="mnt", rootfs=folder).stdout == "later"


EVIL: dict[str, list[tuple[str, roots.Content]]] = {
    "an absolute link": [("out", ("link", "OUTSIDE")), ("out/file", "evil")],
    "a relative link": [("out", ("link", "../../../../../../../../..OUTSIDE")), ("out/file", "evil")],
    "a link to a link": [("a", ("link", "/")), ("b", ("link", "a/OUTSIDE")), ("b/file", "evil")],
    "a link as the file": [("out", ("link", "OUTSIDE/file")), ("out", "evil")],
    "a hard link": [("out", ("link", "OUTSIDE")), ("hard", ("hard", "out/victim")), ("hard", "evil")],
    "a magic link": [("out", ("link", "/proc/self/root/OUTSIDE")), ("out/file", "evil")],
    "dots": [("../../../../../../../../../..OUTSIDE/file", "evil")],
}


@pytest.mark.parametrize("how", EVIL)
def test_d16_an_archive_never_leads_out(how: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("the machine's")
    text = repr(EVIL[how]).replace("OUTSIDE", str(outside))
    members = ast.literal_eval(text)
    (tmp_path / "evil.tar").write_bytes(roots.layer(members))
    with pytest.raises(nslab.NslabError):  # there is no program in it, or it cannot be unpacked
        nslab.run(["/bin/true"], isolate="mnt", rootfs=tmp_path / "evil.tar")
    assert os.listdir(outside) == ["victim"] and (outside / "victim").read_text() == "the machine's"


@pytest.mark.requires("root")
def test_an_archive_for_a_root_who_may_not_read_python() -> None:
    """The first archive of a spawner, which loads what unpacks it."""
    nslab.spawner.shutdown()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # not below one of root's, as tmp_path is
        os.chmod(folder, 0o755)
        archive = roots.tar(Path(folder))
        run = nslab.run(["cat", "/etc/name"], isolate="user mnt", uid_map="subordinate", rootfs=archive)
    assert run.stdout == "folder\n", run


def test_an_archive_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    whole = roots.tar(tmp_path, "root.tar").read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(nslab.NslabError, match=r"half.tar cannot be unpacked"):
        nslab.run(["/bin/true"], isolate="mnt", rootfs=tmp_path / "half.tar")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"rootfs": "/nowhere"}, "rootfs: there is no /nowhere"),
        ({"rootfs": "/etc/passwd"}, "rootfs: /etc/passwd is neither a folder nor a tar archive"),
        ({"rootfs": "/dev/null"}, "rootfs: /dev/null is neither"),
        ({"rootfs": "a\0b"}, "rootfs: must not contain a NUL"),
        ({"rootfs": 3}, "rootfs: must be text"),
        ({"rootfs": "busybox", "isolate": "uts"}, "rootfs: needs a mount namespace"),
        ({"rootfs": "busybox", "user": "root"}, "user: must be a number"),
        ({"mounts": ["/etc:/mnt"], "isolate": "uts"}, "mounts: needs a mount namespace"),
        ({"mounts": "/etc:/mnt"}, "mounts: must be a list"),
        ({"mounts": [3]}, r"mounts\[0\]: 3 is neither"),
        ({"mounts": ["/etc:/mnt", "etc"]}, r"mounts\[1\]: 'etc' is none of"),
        ({"mounts": ["/nowhere:/mnt"]}, r"mounts\[0\]: there is no /nowhere"),
        ({"mounts": ["/etc:/nowhere"]}, r"mounts\[0\]: there is no /nowhere on this machine to mount on"),
        ({"mounts": ["/etc:/etc/passwd"]}, r"mounts\[0\]: a folder can be mounted on a folder only"),
        ({"mounts": ["/etc:/a/../.."], "rootfs": "busybox"}, r"mounts\[0\]: the target .* without"),
        ({"mounts": ["/etc:/"], "rootfs": "busybox"}, r"mounts\[0\]: the target"),
        ({"mounts": ["/etc:/a", "tmpfs:/a/"], "rootfs": "busybox"}, r"mounts\[1\]: /a is the target of mounts\[0\] already"),
        ({"mounts": [nslab.Tmpfs("/mnt", size="much")]}, r"mounts\[0\]: size 'much' is not"),
        ({"mounts": [nslab.Overlay("/etc/passwd", "/mnt")]}, r"mounts\[0\]: /etc/passwd is not a folder"),
        ({"propagation": "none"}, "propagation: 'none' is neither"),
        ({"propagation": "slave", "isolate": "uts"}, "propagation: needs a mount namespace"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(options: dict, rule: str) -> None:
    with nslab.record() as trace, pytest.raises(nslab.SpecError, match=rule):
        nslab.run("true", **{"isolate": "mnt", **options})
    assert len(trace) == 0


def test_a_busybox_with_libraries_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busybox").symlink_to("/bin/ls")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(nslab.Unavailable, match="busybox-static"):
        nslab.run("true", isolate="mnt", rootfs="busybox")
    (tmp_path / "busybox").unlink()
    with pytest.raises(nslab.Unavailable, match="apt-get install busybox-static"):
        nslab.run("true", isolate="mnt", rootfs="busybox")


# -- mounts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("text")
    return tmp_path / "source"


@pytest.mark.parametrize("rootfs", ["busybox", "machine"])
def test_every_kind_of_mount(source: Path, rootfs: str) -> None:
    mounts = [
        nslab.Bind(str(source), "/deep/bound"), f"{source}:/read-only:ro", f"{source}/file:/etc/one-file",
        nslab.Tmpfs("/memory", size="64k", mode=0o700), nslab.Overlay([str(source), "/etc"], "/layers"),
    ]  # fmt: skip
    with nslab.Container(isolate="mnt", rootfs=rootfs, mounts=mounts) as box:
        assert box.run("cat /deep/bound/file /read-only/file /etc/one-file /layers/file; ls /layers/passwd").stdout == (
            "text" * 4 + "/layers/passwd\n"
        )
        box.run("echo new > /deep/bound/new; echo changed > /layers/file", check=True)
        assert "Read-only file system" in box.run("touch /read-only/file2").stderr
        assert box.run("head -c 100k /dev/zero > /memory/file").returncode != 0
    assert sorted(os.listdir(source)) == ["file", "new"] and (source / "file").read_text() == "text"


def test_mounts_on_the_machine_s_own_tree_are_the_container_s_alone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    mounts = [nslab.Overlay(str(source), str(target)), f"{source}:/mnt:ro"]
    with nslab.Container(isolate="mnt", mounts=mounts) as box:
        box.run(f"touch {target}/new; ls {target} /mnt", check=True)
        assert "touch" in box.run("touch /mnt/new").stderr
    assert os.listdir(target) == [] and os.listdir(source) == ["file"]


@pytest.mark.parametrize("text", ["{outside}", "../../../../../../../..{outside}", "/proc/self/root/{outside}", "bin"])
@pytest.mark.parametrize("target", ["/link/below", "/link", "/bin/../link"])
def test_d16_a_mount_target_through_a_symlink_is_refused(text: str, target: str, source: Path, tmp_path: Path) -> None:
    """Before anything is made where the files are there, by the kernel (openat2) where they are unpacked."""
    outside = tmp_path / "outside"
    outside.mkdir()
    text = text.format(outside=outside)
    root = roots.folder(tmp_path / "root")
    (root / "link").symlink_to(text)
    rule = "without '..'" if ".." in target else f"leads through the symlink /link -> {text}"
    with pytest.raises(nslab.SpecError, match=re.escape(rule)):
        nslab.run("true", isolate="mnt", rootfs=root, mounts=[f"{source}:{target}"])
    (tmp_path / "root.tar").write_bytes(roots.layer({"link": ("link", text)}))
    with pytest.raises(nslab.NslabError) as caught:
        nslab.run("true", isolate="mnt", rootfs=tmp_path / "root.tar", mounts=[nslab.Tmpfs(target)])
    if ".." not in target:
        assert isinstance(caught.value, nslab.SyscallError) and caught.value.name == "ELOOP"
        assert f"/link is a symlink there, to {text}" in caught.value.hint
    assert os.listdir(outside) == []


def test_d16_a_symlink_of_the_machine_is_no_target_either(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for entry in (f"tmpfs:{tmp_path}/link", f"/etc:{tmp_path}/link", f"overlay:/etc:{tmp_path}/link"):
        with nslab.record() as trace, pytest.raises(nslab.SpecError, match=f"{tmp_path}/there is where it leads"):
            nslab.run("true", isolate="mnt", mounts=[entry])
        assert len(trace) == 0
    with pytest.raises(nslab.SpecError, match=f"mqueue: {tmp_path}/link leads through the symlink"):
        nslab.run("true", isolate="mnt ipc", mqueue=f"{tmp_path}/link")


def test_the_own_folders_of_a_root_may_be_symlinks_inside_it(tmp_path: Path) -> None:
    root = roots.folder(tmp_path / "root")
    (root / "var" / "tmp").mkdir(parents=True)
    (root / "tmp").symlink_to("/var/tmp")
    assert nslab.run("touch /tmp/new; ls /var/tmp", isolate="mnt", rootfs=root).stdout == "new\n"
    assert not os.listdir(root / "var" / "tmp")


@contextlib.contextmanager
def swapping(place: Path, outside: Path) -> Iterator[None]:
    """A folder that another process exchanges for a link and back (RENAME_EXCHANGE), as fast as it can; it has begun."""
    link = place.with_name("link")
    place.mkdir()
    link.symlink_to(outside)
    code = "import ctypes, os, sys\nexchange, mine = ctypes.CDLL(None).renameat2, os.getppid()\n"
    code += "one, two = map(os.fsencode, sys.argv[1:])\nprint(flush=True)\n"
    code += "while os.getppid() == mine: exchange(-100, one, -100, two, 2)\n"
    with subprocess.Popen([sys.executable, "-c", code, str(place), str(link)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline()
            yield
        finally:
            process.kill()


def test_d16_a_target_that_is_swapped_while_it_is_mounted(source: Path, tmp_path: Path) -> None:
    """Another process makes it a link to a folder of the machine and a folder again, as fast as it can."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = roots.folder(tmp_path / "root")
    with swapping(root / "t", outside):
        for _ in range(25):
            with contextlib.suppress(nslab.SyscallError, nslab.SpecError):
                nslab.run("true", isolate="mnt", rootfs=root, mounts=[f"{source}:/t/below"])
            assert os.listdir(outside) == []


def test_d16_200_mounts_on_a_target_that_is_swapped(source: Path, tmp_path: Path) -> None:
    """The mount alone, which is fast enough to meet the link in each of its states."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()

    def race() -> tuple[int, int]:
        made = refused = 0
        deadline = time.monotonic() + 5
        while (made + refused < 200 or not made or not refused) and time.monotonic() < deadline:
            try:
                ops.BindInside(str(source), "/t", str(root)).perform(ops.Context({}, {}))
                made += 1
            except nslab.SyscallError:
                refused += 1
        return made, refused

    with nslab.process() as process:
        process.unshare("mnt")
        process.do(ops.SetPropagation("private"))
        with swapping(root / "t", outside):
            made, refused = process.call(race)
        assert str(outside) not in process.read("/proc/self/mountinfo")
        assert made and refused and made + refused >= 200, "it met a folder, and met the link"
    assert os.listdir(outside) == [] and sorted(os.listdir(tmp_path)) == ["outside", "root", "source"]
