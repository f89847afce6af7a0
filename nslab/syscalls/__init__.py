"""One function is one system call, under the kernel's name and with its order of arguments; there is no policy here.

Each call is recorded as a Step and raises SyscallError, with a hint, when the kernel says no. The numbers are those of
x86-64 and aarch64. Calls that change what a namespace holds are only made in processes of the spawner: in a notebook or
a plain script they raise Refused, since there they would change the machine itself. Use ``nslab.process()``, or
``call()`` of a Process or Container, to make them.
"""

from typing import TYPE_CHECKING, Any

from nslab.syscalls.decode import MOUNT_FLAGS
from nslab.syscalls.files import mkdir, mkdirat, owner_of, read_file, rmdir, symlinkat, write_file
from nslab.syscalls.guard import allow, allowed
from nslab.syscalls.ids import setgroups, setresgid, setresuid
from nslab.syscalls.interfaces import (
    IFF_UP,
    add_default_route,
    netlink_socket,
    packet_socket,
    set_interface_address,
    set_interface_flags,
)
from nslab.syscalls.mounts import chroot, mount, mount_flags, pivot_root, umount2
from nslab.syscalls.names import setdomainname, sethostname, uname
from nslab.syscalls.nsfs import (
    NS_GET_ID,
    NS_GET_NSTYPE,
    NS_GET_OWNER_UID,
    NS_GET_PARENT,
    NS_GET_PID_FROM_PIDNS,
    NS_GET_PID_IN_PIDNS,
    NS_GET_USERNS,
    listns,
    ns_get_id,
    ns_get_nstype,
    ns_get_owner_uid,
    ns_get_parent,
    ns_get_pid_from_pidns,
    ns_get_pid_in_pidns,
    ns_get_userns,
    open_by_handle_at,
    open_namespace,
    pidfd_getfd,
    siocgskns,
)
from nslab.syscalls.processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NAME,
    PR_SET_PDEATHSIG,
    chdir,
    clone,
    clone3,
    fork,
    kill,
    pidfd_open,
    pidfd_send_signal,
    posix_spawn,
    prctl,
    setns,
    setsid,
    signalfd,
    unshare,
)  # fmt: skip
from nslab.syscalls.trees import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    is_procfs,
    mount_setattr,
    move_mount,
    open_inside,
    open_tree,
    openat2,
)  # fmt: skip
from nslab.syscalls.watches import inotify_add_watch, inotify_init1

if TYPE_CHECKING:
    from nslab.syscalls.machine import LINUX_REBOOT_CMD_POWER_OFF, finit_module, reboot
    from nslab.syscalls.mqueue import detached, mq_getattr, mq_open, mq_receive, mq_send, mq_unlink
    from nslab.syscalls.sysv import (
        GETALL,
        IPC_CREAT,
        IPC_EXCL,
        IPC_NOWAIT,
        IPC_PRIVATE,
        IPC_RMID,
        SEM_UNDO,
        SETALL,
        SHM_RDONLY,
        memory_at,
        msgctl,
        msgget,
        msgrcv,
        msgsnd,
        remove_all,
        semctl,
        semget,
        semop,
        shmat,
        shmctl,
        shmdt,
        shmget,
    )  # fmt: skip

__all__ = [
    "AT_EMPTY_PATH", "AT_RECURSIVE", "GETALL", "IFF_UP", "IPC_CREAT", "IPC_EXCL", "IPC_NOWAIT", "IPC_PRIVATE", "IPC_RMID",
    "LINUX_REBOOT_CMD_POWER_OFF", "MOUNT_ATTR_IDMAP", "MOUNT_ATTR_RDONLY", "MOUNT_FLAGS", "NS_GET_ID", "NS_GET_NSTYPE",
    "NS_GET_OWNER_UID", "NS_GET_PARENT", "NS_GET_PID_FROM_PIDNS", "NS_GET_PID_IN_PIDNS", "NS_GET_USERNS", "OPEN_TREE_CLONE",
    "PR_SET_CHILD_SUBREAPER", "PR_SET_DUMPABLE", "PR_SET_NAME", "PR_SET_PDEATHSIG", "RESOLVE_BENEATH", "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS", "RESOLVE_NO_SYMLINKS", "RESOLVE_NO_XDEV", "SEM_UNDO", "SETALL", "SHM_RDONLY",
    "add_default_route", "allow", "allowed", "chdir", "chroot", "clone", "clone3", "detached", "finit_module", "fork",
    "inotify_add_watch", "inotify_init1", "is_procfs", "kill", "listns", "memory_at", "mkdir", "mkdirat", "mount",
    "mount_flags", "mount_setattr", "move_mount", "mq_getattr", "mq_open", "mq_receive", "mq_send", "mq_unlink", "msgctl",
    "msgget", "msgrcv", "msgsnd", "netlink_socket", "ns_get_id", "ns_get_nstype", "ns_get_owner_uid", "ns_get_parent",
    "ns_get_pid_from_pidns", "ns_get_pid_in_pidns", "ns_get_userns", "open_by_handle_at", "open_inside", "open_namespace",
    "open_tree", "openat2", "owner_of", "packet_socket", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "pivot_root",
    "posix_spawn", "prctl", "read_file", "reboot", "remove_all", "rmdir", "semctl", "semget", "semop",
    "set_interface_address", "set_interface_flags", "setdomainname", "setgroups", "sethostname", "setns", "setresgid",
    "setresuid", "setsid", "shmat", "shmctl", "shmdt", "shmget", "signalfd", "siocgskns", "symlinkat", "umount2", "uname",
    "unshare", "write_file",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What the spawner has no need of is loaded when it is first used."""
    if name in __all__:
        from nslab.syscalls import machine, mqueue, sysv

        return next(getattr(module, name) for module in (sysv, mqueue, machine) if hasattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
