"""The ways, each a function that returns what it got hold of, or raises OSError (or returns nothing) when it was refused.

Read from standard input by a Python inside the container; its argument is JSON: ``numbers`` of system calls by name, and what
the machine has that is to be reached. It prints JSON: for each way whether it got through, and how.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
facts: dict[str, Any] = {}

NEWUSER = 0x10000000
REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS)

Way = Callable[[], "str | None"]
ways: dict[str, tuple[Way, str, str]] = {}  # name -> the function, what it tries, what a plain container lacks


def way(what: str, why: str) -> Callable[[Way], Way]:
    def note(function: Way) -> Way:
        ways[function.__name__] = (function, what, why)
        return function

    return note


def call(name: str, *arguments: Any) -> int:
    """A system call by name; OSError when it fails. Numbers are passed as the kernel takes them, 64 bits wide."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = libc.syscall(ctypes.c_long(facts["numbers"][name]), *wide)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def reached(name: str, *arguments: Any) -> str:
    """A call with arguments that it cannot take: any answer but a refusal says that it would have been done."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in REFUSED:
            raise
        return f"got as far as {errno.errorcode[error.errno or 0]}"
    return "done"


def opened(path: str, flags: int) -> str:
    os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
    return path


def one_of(paths: list[str], flags: int) -> str:
    """The first that can be opened, else the error of the last."""
    last: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in paths:
        try:
            return opened(path, flags)
        except OSError as error:
            last = error
    raise last


# -- root of the machine ----------------------------------------------------------------------------------------------


@way("read /etc/shadow", "root inside is root outside (map 0 0 1): files ask for the id outside")
def shadow() -> str:
    return opened("/etc/shadow", os.O_RDONLY)


@way("open /etc/passwd for writing", "root inside is root outside (map 0 0 1)")
def passwd() -> str:
    return opened("/etc/passwd", os.O_WRONLY)


@way("open core_pattern for writing", "one core_pattern for all namespaces, and it belongs to uid 0 outside")
def core_pattern() -> str:
    return opened("/proc/sys/kernel/core_pattern", os.O_WRONLY)


@way("open a sysctl of the machine for writing", "/proc/sys shows the machine's settings wherever no namespace has its own")
def sysctl() -> str:
    return one_of(["/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/protected_symlinks"], os.O_WRONLY)


@way("open sysrq-trigger for writing", "one letter reboots the machine; only the file's owner guards it")
def sysrq() -> str:
    return opened("/proc/sysrq-trigger", os.O_WRONLY)


@way("open release_agent for writing", "a cgroup v1 hierarchy runs that program as root, outside (CVE-2022-0492)")
def release_agent() -> str:
    return one_of(sorted(glob.glob("/sys/fs/cgroup/*/release_agent")), os.O_WRONLY)


@way("open a file of sysfs for writing", "/sys is the machine's: devices, modules, power")
def sysfs() -> str:
    paths = ["/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state", "/sys/kernel/profiling"]
    return one_of([*paths, *sorted(glob.glob("/sys/module/*/parameters/*"))[:50], "/sys/kernel/uevent_seqnum"], os.O_WRONLY)


@way("open a disk", "device nodes in sight are the machine's; root outside owns them")
def disk() -> str:
    nodes = [path for path in sorted(glob.glob("/dev/*")) if stat.S_ISBLK(os.stat(path, follow_symlinks=False).st_mode)]
    return one_of(nodes, os.O_RDONLY)


@way("open /dev/mem or /dev/kmsg", "memory asks for a capability of the machine, the log only for its owner")
def devices() -> str:
    return one_of(["/dev/mem", "/dev/port", "/dev/kmsg"], os.O_WRONLY)


@way("make a device node", "a user namespace never may; without one, CAP_MKNOD is enough")
def mknod() -> str:
    path = tempfile.mktemp(dir="/tmp")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.unlink(path)
    return "made /dev/zero"


@way("make a file setuid root outside", "files that root inside makes belong to whom the map says (the file has no name)")
def setuid_file() -> str | None:
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.fchmod(fd, 0o4755)
    with open("/proc/self/uid_map") as file:
        inside, outside, _ = (int(word) for word in file.readline().split())
    is_root = os.fstat(fd).st_uid - inside + outside == 0 and facts["uid"] == 0  # an ordinary user's 0 is himself
    return "uid 0, mode 4755" if is_root else None


# -- its init, and who enters -------------------------------------------------------------------------------------------


@way(
    "overwrite the runtime through /proc/1/exe",
    "one of the machine's could be, when it is not busy (CVE-2019-5736); nslab's init is a sealed file in memory, in either",
)
def exe() -> str | None:
    fd = os.open("/proc/1/exe", os.O_RDONLY)
    with contextlib.suppress(OSError):  # it is in no memory file
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            return None
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:
            raise
    return os.readlink("/proc/1/exe")


@way("read the environment of init", "nslab's has none, in either container; a copy of the notebook would have its secrets")
def environment() -> str | None:
    with open("/proc/1/environ", "rb") as file:
        text = file.read()
    return f"{text.count(bytes(1))} variables" if text else None


@way("read the memory of init by its file", "who has CAP_SYS_PTRACE over it may")
def memory() -> str:
    return opened("/proc/1/mem", os.O_RDONLY)


@way("read the memory of init by process_vm_readv", "who has CAP_SYS_PTRACE over it may")
def vm_readv() -> str:
    with open("/proc/1/maps") as file:
        start = int(file.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(4)
    here, there = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 4), (ctypes.c_uint64 * 2)(start, 4)
    call("process_vm_readv", 1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return f"{buffer.raw!r}"


@way("trace init", "ptrace needs no more than CAP_SYS_PTRACE in its user namespace")
def ptrace() -> str:
    call("ptrace", 0x4206, 1, 0, 0)  # PTRACE_SEIZE, which stops nobody
    return "seized PID 1"


@way("look at the descriptors of init", "nslab's holds none, in either container; a channel would lead to the notebook")
def descriptors() -> str | None:
    return ", ".join(os.readlink(f"/proc/1/fd/{fd}") for fd in os.listdir("/proc/1/fd")) or None


@way("take a descriptor of init", "pidfd_getfd copies any of them; nslab's holds none, in either container")
def getfd() -> str | None:
    pidfd = os.pidfd_open(1)
    for fd in range(3, 64):
        try:
            call("pidfd_getfd", pidfd, fd, 0)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        else:
            return f"descriptor {fd}"
    return None


@way("look at the process that enters, before its execve", "it has memory and descriptors of ours until then (CVE-2016-9962)")
def joiner() -> str | None:
    known = set(os.listdir("/proc"))
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for pid in set(os.listdir("/proc")) - known:
            try:
                if pid.isdigit() and "python" in os.readlink(f"/proc/{pid}/exe"):
                    opened(f"/proc/{pid}/mem", os.O_RDONLY)
                    return f"memory of PID {pid}, our Python"
            except OSError:
                continue
    return None


@way("use a descriptor that was left open", "nslab leaves none, in either container")
def left_open() -> str | None:
    return ", ".join(link for fd in range(3, 256) if (link := _link(fd)) and not link.startswith("pipe:")) or None


def _link(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@way("enter a namespace by a descriptor that was left open", "nslab leaves none, in either container")
def left_namespace() -> str | None:
    for fd in range(256):
        if libc.setns(fd, 0) == 0:
            return f"descriptor {fd}"
    return None


@way("reach the folder in which it was started", "the working directory of nslab's init is /, in either container")
def working_directory() -> str | None:
    folder = os.readlink("/proc/1/cwd")
    os.close(os.open("/proc/1/cwd", os.O_RDONLY | os.O_DIRECTORY))
    return folder if folder != "/" else None


# -- across ---------------------------------------------------------------------------------------------------------------


@way("find a key of the notebook", "keyrings are no namespace, and are inherited; session keyrings go by possession")
def key() -> str:
    number = call("keyctl", 10, -3, b"user", b"nslab-battery", 0)  # KEYCTL_SEARCH in the session keyring
    buffer = ctypes.create_string_buffer(16)
    call("keyctl", 11, number, buffer, 16)  # KEYCTL_READ
    return buffer.value.decode()


@way("see the keys of the machine", "/proc/keys shows what one possesses or may see")
def keys() -> str | None:
    with open("/proc/keys") as file:
        return f"{len(lines)} keys" if (lines := file.readlines()) else None


@way("connect to an abstract socket of the machine", "abstract names belong to the network namespace: an own one is enough")
def abstract_socket() -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"\0{facts['abstract']}")
    return "connected"


@way("attach shared memory of the machine", "System V objects belong to the ipc namespace: an own one is enough")
def shared_memory() -> str:
    libc.shmat.restype = ctypes.c_long
    if libc.shmat(facts["shm"], None, 0o10000) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "attached"


@way("signal a process outside", "a process without a number here cannot be named: an own pid namespace is enough")
def outside_process() -> str:
    os.kill(facts["pid"], 0)
    return f"PID {facts['pid']}"


@way("open a socket to the hypervisor", "AF_VSOCK knows no network namespace")
def vsock() -> str:
    socket.socket(40, socket.SOCK_STREAM).close()
    return "a socket of AF_VSOCK"


@way("type into a terminal by TIOCSTI", "on its own pseudo-terminal here; on one that was shared, into the shell outside")
def tiocsti() -> str:
    if os.getsid(0) != os.getpid():
        os.setsid()
    _, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    fcntl.ioctl(slave, termios.TIOCSTI, b"x")
    return "typed"


# -- the kernel -------------------------------------------------------------------------------------------------------------


@way("make a user namespace by unshare", "it gives every capability over new code of the kernel")
def unshare_user() -> str:
    if libc.unshare(NEWUSER):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "made"


@way("make a user namespace by clone", "it gives every capability over new code of the kernel")
def clone_user() -> str:
    if (pid := call("clone", NEWUSER | signal.SIGCHLD, None, None, None, None)) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made"


@way("make a user namespace by clone3", "a filter cannot see its flags, they are in memory")
def clone3_user() -> str:
    arguments = (ctypes.c_uint64 * 8)(NEWUSER, 0, 0, 0, signal.SIGCHLD)
    if (pid := call("clone3", ctypes.byref(arguments), 64)) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made"


def _mount(source: bytes, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None) -> None:
    if libc.mount(source, target, fstype, ctypes.c_ulong(flags), data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@way("mount a filesystem", "root of a user namespace may: every parser of such a filesystem is in reach, and races with it")
def mount() -> str:
    _mount(b"none", b"/mnt", b"tmpfs", 0)
    return "a tmpfs"


@way("mount a cgroup v1 hierarchy", "it brings its own release_agent (CVE-2022-0492)")
def mount_cgroup() -> str:
    _mount(b"none", b"/mnt", b"cgroup", 0, b"memory")
    return "memory"


@way("mount a second /proc", "one without what covers the first")
def mount_proc() -> str:
    _mount(b"proc", b"/mnt", b"proc", 0)
    return "at /mnt"


@way("move a mount to another place, by the newer calls", "a place that somebody else looks up later: mount races begin here")
def open_tree() -> str:
    os.close(call("open_tree", -100, b"/tmp", 1))  # OPEN_TREE_CLONE
    return "a copy of the mount of /tmp"


@way("take a mount off", "what covers something can be taken off again by whoever may mount")
def umount() -> str:
    return reached("umount2", b"/nowhere", 0)


@way("leave a root directory by a second chroot", "chroot keeps nobody in who may call it")
def double_chroot() -> str:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        above = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot(folder)
        os.fchdir(above)
        os.chroot(".")
        return "back at /" if os.path.exists("/etc") else "lost"


@way("open a file by its handle, past every mount", "CAP_DAC_READ_SEARCH of the machine is asked for")
def by_handle() -> str:
    handle, mount_id = ctypes.create_string_buffer(136), ctypes.c_int()
    ctypes.c_uint32.from_buffer(handle).value = 128
    call("name_to_handle_at", -100, b"/", handle, ctypes.byref(mount_id), 0)
    root = os.open("/", os.O_RDONLY)
    os.close(call("open_by_handle_at", root, handle, os.O_RDONLY))
    return "/"


@way("load a kernel module", "CAP_SYS_MODULE of the machine is asked for, and no namespace gives it")
def module() -> str:
    return reached("finit_module", -1, b"", 0)


@way("start another kernel by kexec", "CAP_SYS_BOOT of the machine is asked for")
def kexec() -> str:
    return reached("kexec_load", 0, 1 << 20, None, 0xFFFF)


@way("reboot", "in a pid namespace it ends the container, and only that (called with a wrong number)")
def reboot() -> str:
    return reached("reboot", 0, 0, 0, None)


@way("set the clock", "there is one for all; CAP_SYS_TIME of the machine is asked for")
def clock() -> str:
    return reached("settimeofday", None, None)


@way("turn swap on", "CAP_SYS_ADMIN of the machine is asked for")
def swapon() -> str:
    return reached("swapon", b"/nowhere", 0)


@way("read the log of the kernel", "there is one for all; kernel.dmesg_restrict may be 0")
def log() -> str:
    return f"{call('syslog', 3, ctypes.create_string_buffer(64), 64)} bytes"


@way("load a program into the kernel by bpf", "kernel.unprivileged_bpf_disabled may be 0 (a map is tried)")
def bpf() -> str:
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)  # BPF_MAP_TYPE_ARRAY
    os.close(call("bpf", 0, ctypes.byref(attributes), 72))
    return "made a map"


@way("measure by perf_event_open", "one's own processes, where kernel.perf_event_paranoid is below 3")
def perf() -> str:
    attributes = (ctypes.c_uint64 * 16)(1 | 112 << 32, 0)  # PERF_TYPE_SOFTWARE, the size of the structure, cpu-clock
    attributes[5] = 0x60  # exclude_kernel, exclude_hv
    os.close(call("perf_event_open", ctypes.byref(attributes), 0, -1, -1, 0))
    return "a counter"


@way("stop the kernel at a page by userfaultfd", "what makes races certain; page faults of user space are free to all")
def userfault() -> str:
    os.close(call("userfaultfd", 1))  # UFFD_USER_MODE_ONLY
    return "a descriptor"


@way("use io_uring", "calls that no seccomp filter sees")
def io_uring() -> str:
    os.close(call("io_uring_setup", 1, ctypes.byref((ctypes.c_uint32 * 30)())))
    return "a ring"


@way("read addresses or memory of the kernel", "/proc/kcore and /proc/kallsyms are files like others")
def kernel_memory() -> str | None:
    if os.path.exists("/proc/kcore"):
        return opened("/proc/kcore", os.O_RDONLY)
    with open("/proc/kallsyms") as file:
        return "names of the kernel" if file.readline() else None


@way("leave a core dump to the machine", "core_pattern may name a program of the machine, which runs as root, outside")
def core_dump() -> str | None:
    return "may be dumped" if resource.getrlimit(resource.RLIMIT_CORE)[1] else None


@way("gain by a setuid file", "uid 0 in the map is enough for its setuid files to count")
def no_new_privileges() -> str | None:
    return "execve may add privileges" if libc.prctl(39, 0, 0, 0, 0) == 0 else None  # PR_GET_NO_NEW_PRIVS


# -- running them ---------------------------------------------------------------------------------------------------------


def attempt(function: Way) -> tuple[bool, str]:
    """Try one way in a process of its own, which may be killed for it."""
    shared = mmap.mmap(-1, 4096)
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        try:
            detail = function()
            outcome = [detail is not None, detail or "nothing there"]
        except OSError as error:
            outcome = [False, errno.errorcode.get(error.errno or 0, str(error))]
        except BaseException as error:
            outcome = [False, f"wrong: {error!r}"]
        shared.write(json.dumps(outcome)[:4000].encode())
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status:
        return False, f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "wrong: ended"
    got, detail = json.loads(shared[:].rstrip(b"\0"))
    return got, detail


def main() -> None:
    facts.update(json.loads(sys.argv[1]))
    print(json.dumps({"machine": platform.machine(), "ways": {name: attempt(each[0]) for name, each in ways.items()}}))


if __name__ == "__main__":
    main()
