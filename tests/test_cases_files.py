"""What goes wrong with mounts and root filesystems elsewhere, after reports of users and advisories; it goes right here."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import nslab
from nslab import ops
from tests import roots

pytestmark = pytest.mark.requires("tool:busybox", "userns")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return roots.folder(tmp_path / "root")


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


# -- group a -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rootfs", [None, "busybox"])
def test_a17_the_old_proc_is_there_to_be_had(rootfs: str | None) -> None:
    number = nslab.run(["readlink", "/proc/self"], isolate="pid mnt", rootfs=rootfs, proc="old").check().stdout
    assert int(number) > 64, "as the machine numbers it"


@pytest.mark.parametrize("rootfs", [None, "busybox", "machine"])
def test_a18_every_process_in_proc_is_the_container_s_own(rootfs: str | None) -> None:
    script = "readlink /proc/self; echo $$; ls /proc | grep -c '^[0-9]'"
    self, pid, count = nslab.run(script, isolate="pid mnt", rootfs=rootfs).check().lines
    assert int(self) < 10 and int(pid) < 10 and int(count) <= 6


@pytest.mark.parametrize("propagation", ["private", "slave", "shared"])
def test_a27_no_mount_travels_out_of_a_shared_one(propagation: str, tmp_path: Path) -> None:
    """The machine of this test is a steered process, whose mounts are shared."""
    target = tmp_path / "shared"
    target.mkdir()
    with nslab.process() as machine:
        machine.unshare("mnt")
        machine.mount("tmpfs", str(target), "tmpfs")
        machine.mount(None, str(target), None, "MS_SHARED")
        before = machine.read("/proc/self/mountinfo")
        with machine.fork() as container:
            container.unshare("mnt")
            if propagation == "shared":
                container.do(ops.SetPropagation("private"))
            container.do(ops.SetPropagation(propagation))
            container.mount("tmpfs", str(target), "tmpfs", data="size=64k")
            assert container.read("/proc/self/mountinfo").count(str(target)) == 2
            assert machine.read("/proc/self/mountinfo") == before
            container.umount(str(target))
            machine.mount("tmpfs", str(target), "tmpfs", data="size=128k")
            assert (container.read("/proc/self/mountinfo").count(str(target)) == 2) == (propagation == "slave")
            machine.umount(str(target))


def test_a27_the_machine_sees_no_mount_of_a_container(root: Path) -> None:
    before = mounts()
    with nslab.Container(isolate="mnt", rootfs=root, mounts=["tmpfs:/a", f"{root}:/b"]) as box:
        box.run("true", check=True)
        assert mounts() == before
    with nslab.Container(isolate="mnt", mounts=["tmpfs:/mnt", "overlay:/etc:/srv"]):
        assert mounts() == before


def test_a28_any_folder_is_a_root(tmp_path: Path) -> None:
    """No mount point, a space in its name, a comma and a colon, or reached by a symlink."""
    for name in ("plain", "with space", "a,b:c"):
        folder = roots.folder(tmp_path / name)
        assert nslab.run(["cat", "/etc/name"], isolate="mnt", rootfs=folder).stdout == "folder\n"
    (tmp_path / "link").symlink_to("with space")
    assert nslab.run(["cat", "/etc/name"], isolate="mnt", rootfs=tmp_path / "link").stdout == "folder\n"


def test_a28_pivot_root_in_a_chroot_and_on_a_file(tmp_path: Path) -> None:
    """The reasons that tests/test_cases_a.py leaves."""
    new = tmp_path / "new"
    (new / "old").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    with nslab.process() as process:
        process.unshare("mnt")
        process.do(ops.SetPropagation("private"))
        process.mount("/proc", str(tmp_path / "proc"), None, "MS_BIND|MS_REC")
        process.mount(str(new), str(new), None, "MS_BIND")
        process.run(["touch", str(new / "file")], check=True)
        with pytest.raises(nslab.SyscallError, match=r"(?s)ENOTDIR.*must be folders"):
            process.pivot_root(str(new), str(new / "file"))
        process.chroot(str(tmp_path))
        with pytest.raises(nslab.SyscallError, match=r"(?s)EINVAL.*the current root must be a mount point, not the folder"):
            process.pivot_root("/new", "/new/old")
        process.umount("/proc", detach=True)
        with pytest.raises(nslab.SyscallError, match=r"(?s)EINVAL.*must be a mount point \(not the folder of a chroot\)"):
            process.pivot_root("/new", "/new/old")


# -- group d -----------------------------------------------------------------------------------------------------------


def test_d02_a_descriptor_is_no_working_directory(root: Path) -> None:
    with nslab.Container(isolate="mnt", rootfs=root) as box:
        paths = [f"/proc/self/fd/{number}" for number in range(51)]
        for path in (*paths, "/proc/1/../self/fd/3/etc", "/proc/self/cwd", "/proc/1/root", "/proc/self/task/1/root"):
            with pytest.raises(nslab.SpecError, match="magic link"):
                box.run(["ls", "../../etc/passwd"], cwd=path)


def test_d02_nor_is_one_behind_a_symlink(root: Path) -> None:
    """What only the container's own files reveal: the working directory would lie outside its root."""
    for number in range(12):
        (root / f"fd{number}").symlink_to(f"/proc/self/fd/{number}")
    (root / "machine").symlink_to("/proc/1/root")
    with nslab.Container(isolate="mnt", rootfs=root) as box:  # it has the machine's /proc
        for name in [f"fd{number}" for number in range(12)] + ["machine"]:
            with pytest.raises(nslab.SyscallError, match="chdir"):
                box.run(["ls", "../../etc/passwd"], cwd=f"/{name}")


DOUBLE_CHROOT = """
import os, sys
os.mkdir('/tmp/x'); fd = os.open('/', os.O_RDONLY); os.chroot('/tmp/x'); os.fchdir(fd)
for _ in range(30): os.chdir('..')
os.chroot('.'); print(os.path.exists(sys.argv[1]))
"""


@pytest.mark.parametrize("kinds", ["mnt", "user mnt", "all"])
def test_d14_there_is_no_way_back_from_a_root(kinds: str, tmp_path: Path) -> None:
    """The classic second chroot, by root inside; the marker lies where only the machine's root leads."""
    marker = tmp_path / "marker"
    marker.write_text("")
    with nslab.Container(isolate=kinds, rootfs="machine") as box:  # which has Python, and a /tmp of its own
        python = os.path.realpath("/usr/bin/python3")
        assert box.run([python, "-c", DOUBLE_CHROOT, str(marker)]).stdout == "False\n"
        assert os.readlink(f"/proc/{box.pid}/cwd") == "/"


def test_d14_but_there_is_from_a_chroot(tmp_path: Path) -> None:
    def double_chroot(marker: str) -> bool:  # as above, once more
        os.mkdir("/tmp/x")
        fd = os.open("/", os.O_RDONLY)
        nslab.syscalls.chroot("/tmp/x")
        os.fchdir(fd)
        for _ in range(30):
            os.chdir("..")
        nslab.syscalls.chroot(".")
        return os.path.exists(marker)

    (tmp_path / "jail" / "tmp").mkdir(parents=True)
    with nslab.process() as process:
        process.chroot(str(tmp_path / "jail"))
        assert process.call(double_chroot, str(tmp_path / "jail"))


@pytest.fixture
def trapped(root: Path) -> Iterator[Path]:
    """A root in which every module that Python could load, from wherever, tells that it was."""
    library, package = Path(sysconfig.get_paths()["stdlib"]), Path(nslab.__file__).parent
    found = [path for folder in (library, library / "encodings", library / "json") for path in folder.glob("*.py")]
    found += [folder / "__init__.py" for folder in library.iterdir() if (folder / "__init__.py").is_file()]
    for path in {*found, *package.rglob("*.py")}:
        trap = root / str(path).lstrip("/")
        trap.parent.mkdir(parents=True, exist_ok=True)
        trap.write_text("import os\nos.close(os.open('/' + __name__, os.O_CREAT))\nopen('/marker', 'w').write(__name__)\n")
    yield root


def test_d15_nor_by_who_enters_its_mount_table_in_another_way(trapped: Path) -> None:
    with (
        nslab.Container(isolate="mnt", rootfs=trapped) as box,
        box.namespaces["mnt"] as mnt,
        nslab.Container(isolate="uts", join={"mnt": box}) as second,
        nslab.Container(join={"mnt": mnt}) as third,
    ):
        for inside in (mnt, second, third):
            for module in ("colorsys", "json.tool", "nslab.magics"):
                with pytest.raises(ModuleNotFoundError):
                    inside.call(__import__, module)
            with pytest.raises(nslab.SyscallError, match="there is no program"):
                inside.run(["/nowhere"])
            with pytest.raises(nslab.NslabError, match="cannot be sent back"):
                inside.call(os.scandir, "/")
            assert inside.call(os.path.exists, "/etc/name") and not inside.call(os.path.exists, "/marker")
    with nslab.Namespace.of(os.getpid(), "mnt") as own:
        assert own.call(__import__, "colorsys").__name__ == "colorsys"


def test_d15_no_code_of_the_container_is_loaded(trapped: Path) -> None:
    with nslab.Container(isolate="mnt", rootfs=trapped) as box:
        with pytest.raises(nslab.SyscallError, match="there is no program"):
            box.run(["/nowhere"])
        with pytest.raises(nslab.SyscallError, match="chdir"):
            box.run(["true"], cwd="/nowhere")
        if os.geteuid() == 0:
            box.run("true", user=1, check=True)
        for module in ("colorsys", "json.tool", "nslab.magics", "encodings.cp037"):
            with pytest.raises(ModuleNotFoundError):
                box.call(__import__, module)
        with pytest.raises(LookupError):
            box.call("text".encode, "cp037")
        with pytest.raises(ZeroDivisionError):
            box.call(divmod, 1, 0)
        with pytest.raises(nslab.NslabError, match="cannot be sent back"):
            box.call(os.scandir, "/")
        assert box.call(os.listdir, "/proc/self/fd")
        assert box.run("ls /").lines == sorted({*os.listdir(trapped), "dev", "proc", "run", "sys", "tmp"})
        assert box.run(["ls", "/marker"]).returncode != 0


class Opened:
    """How often a file was opened since: inotify(7) tells it of an inode, whatever mount namespace it is opened from."""

    def __init__(self, path: Path):
        libc = ctypes.CDLL(None)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self.fd, os.fsencode(path), 0x20) > 0  # IN_OPEN

    def __bool__(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self.fd, 4096))
        return False


def test_d15_names_of_users_are_looked_up_without_a_library_of_the_container(root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "nsswitch.conf").write_text("passwd: trap\ngroup: trap\n")
    (root / "etc" / "passwd").write_text("somebody:x:0:0::/:/bin/sh\n")
    machine = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, env={"PATH": "/usr/sbin:/sbin"}).stdout
    folder = os.path.dirname(machine.split("libc.so.6", 1)[1].split("=>", 1)[1].split()[0])
    trap = root / folder.lstrip("/") / "libnss_trap.so.2"
    trap.parent.mkdir(parents=True, exist_ok=True)
    trap.write_text("no program")
    opened = Opened(trap)
    with nslab.Container(isolate="user mnt", rootfs=root) as box:
        assert box.run("echo here", user=0).lines == ["here"]
        with pytest.raises(nslab.SpecError, match="user: must be a number"):
            box.run("echo here", user="somebody")
    assert not opened
    with nslab.process() as process:  # that it would be, had somebody asked the C library
        process.unshare("user")
        process.chroot(str(root))
        with pytest.raises(KeyError):
            process.call(pwd.getpwnam, "somebody")
    assert opened
    os.close(opened.fd)
