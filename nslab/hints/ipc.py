"""What an errno of System V IPC or of a POSIX message queue means."""

from __future__ import annotations

import errno as numbers
from typing import Any

from nslab import procfs

_WHAT = {"shmget": "shared memory segment", "semget": "set of semaphores", "msgget": "message queue"}
_GET = "shmget semget msgget"
_USE = "shmat shmctl semop semctl msgsnd msgrcv msgctl"
_EMPTY = "An IPC namespace begins empty: what is made in one is seen only there. ipc_namespaces(7)"

# Calls, errno, hint; {kernel/shmmax} and the like stand for what the sysctl is in this namespace.
_HINTS = (
    (_GET, "ENOENT", f"no {{what}} with key {{key}} is in the IPC namespace of this process. {_EMPTY}"),
    (
        _GET, "EEXIST",
        "there is a {what} with key {key} in this IPC namespace already.\nwhat to do: open it, or choose another key.",
    ),
    (
        "shmget", "EINVAL",
        "a segment has at least 1 byte and at most kernel.shmmax ({kernel/shmmax}); one that is there is not larger than asked "
        "for. shmget(2)",
    ),
    ("semget", "EINVAL", "a set has at least 1 semaphore and at most the first number of kernel.sem ({kernel/sem}). semget(2)"),
    (
        "shmget", "ENOSPC",
        "this IPC namespace is full: kernel.shmmni is {kernel/shmmni} segments, kernel.shmall {kernel/shmall} pages.",
    ),
    (
        "semget", "ENOSPC",
        "this IPC namespace is full: kernel.sem is {kernel/sem}, the second number semaphores in all, the last one sets.",
    ),
    ("msgget", "ENOSPC", "this IPC namespace is full: kernel.msgmni is {kernel/msgmni} queues."),
    ("msgsnd", "EINVAL", f"the message is longer than kernel.msgmax ({{kernel/msgmax}}), or the id is unknown here. {_EMPTY}"),
    (
        _USE, "EINVAL",
        "no object with that id is in the IPC namespace of this process (any more): ids count in each namespace on their own, "
        "and one from elsewhere means nothing here. ipc_namespaces(7)",
    ),
    (f"{_GET} {_USE}", "EIDRM", "the object was removed meanwhile."),
    (f"{_GET} {_USE}", "EACCES", "the permissions of the object are for another user. sysvipc(7)"),
    ("mq_open mq_unlink", "ENOENT", f"no queue {{name}} is in the IPC namespace of this process. {_EMPTY}"),
    ("mq_open", "EEXIST", "there is a queue {name} in this IPC namespace already."),
    (
        "mq_open", "EINVAL",
        "the most in this IPC namespace are fs.mqueue.msg_max ({fs/mqueue/msg_max}) messages of fs.mqueue.msgsize_max "
        "({fs/mqueue/msgsize_max}) bytes. mq_overview(7)",
    ),
    ("mq_open", "ENOSPC", "this IPC namespace is full: fs.mqueue.queues_max is {fs/mqueue/queues_max} queues. mq_overview(7)"),
    ("mq_open", "EMFILE", "all queues of this user together would need more than RLIMIT_MSGQUEUE bytes. getrlimit(2)"),
    ("mq_send", "EMSGSIZE", "the message is longer than this queue takes. mq_send(3)"),
)  # fmt: skip
_SYSCTLS = (
    "kernel/shmmax", "kernel/shmmni", "kernel/shmall", "kernel/sem", "kernel/msgmni", "kernel/msgmax", "fs/mqueue/msg_max",
    "fs/mqueue/msgsize_max", "fs/mqueue/queues_max",
)  # fmt: skip


def explain_ipc(call: str, errno: int, key: int = 0, name: str = "", **_: Any) -> str:
    """The hint for ``call``, "" for one of another kind."""
    symbol = numbers.errorcode.get(errno)
    text = next((text for calls, number, text in _HINTS if number == symbol and call in calls.split()), "")
    for sysctl in _SYSCTLS:
        if f"{{{sysctl}}}" in text:
            text = text.replace(f"{{{sysctl}}}", " ".join(procfs.read(f"sys/{sysctl}").decode().split()))
    return text.replace("{what}", _WHAT.get(call, "")).replace("{key}", hex(key & 0xFFFFFFFF)).replace("{name}", str(name))
