"""System V IPC: shared memory, semaphores, message queues. Each object has a key, and an id that the kernel chose.

Loaded when it is first used: the spawner has no need of it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable

from nslab.syscalls.guard import implied, invoke, libc, refuse_here

IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0o1000, 0o2000, 0o4000
IPC_PRIVATE, IPC_RMID = 0, 0
SHM_RDONLY, SEM_UNDO = 0o10000, 0x1000
GETALL, SETALL = 13, 17
# By object: the commands for the highest index in use, and for the id at an index.
_INFO = {"shmctl": (14, 15), "msgctl": (12, 13), "semctl": (19, 20)}
# By sort, as /proc/sysvipc has it: the call, and where in what the first of its commands answers their number is.
_COUNTS = {"shm": ("shmctl", 0), "sem": ("semctl", 7), "msg": ("msgctl", 0)}

libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmat.restype = ctypes.c_ssize_t
libc.shmdt.argtypes = [ctypes.c_void_p]
libc.shmctl.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
libc.semget.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
libc.semop.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
libc.semctl.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
libc.msgget.argtypes = [ctypes.c_int, ctypes.c_int]
libc.msgsnd.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
libc.msgrcv.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int]
libc.msgrcv.restype = ctypes.c_ssize_t
libc.msgctl.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]


def shmget(key: int, size: int, flags: int) -> int:
    """The id of the segment with this key, made where ``flags`` have IPC_CREAT; ``size`` in bytes.

    ENOENT, EEXIST, EINVAL for a size below 1, above kernel.shmmax or that of the segment. Source: shmget(2).
    """
    refuse_here("shmget", "ipc")
    return int(invoke("shmget", (key, size, flags), libc.shmget, key, size, flags, key=key, size=size))


def shmat(segment: int, flags: int = 0) -> int:
    """Attach a segment (SHM_RDONLY: to be read only) and return its address in this process. Source: shmat(2)."""
    refuse_here("shmat", "ipc")
    return int(invoke("shmat", (segment, None, flags), libc.shmat, segment, None, flags))


def shmdt(address: int) -> None:
    """Detach the segment at this address. Source: shmdt(2)."""
    invoke("shmdt", (address,), libc.shmdt, address)


def memory_at(address: int, size: int) -> memoryview:
    """The bytes of an attached segment; not to be used once that is detached."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def shmctl(segment: int, command: int) -> None:
    """IPC_RMID: remove a segment, once nobody has it attached any more. Source: shmctl(2)."""
    refuse_here("shmctl", "ipc")
    invoke("shmctl", (segment, command, None), libc.shmctl, segment, command, None)


def semget(key: int, count: int, flags: int) -> int:
    """The id of the set of ``count`` semaphores with this key; as shmget. Source: semget(2)."""
    refuse_here("semget", "ipc")
    return int(invoke("semget", (key, count, flags), libc.semget, key, count, flags, key=key))


def semop(semaphores: int, operations: Iterable[tuple[int, int, int]]) -> None:
    """Do (number, change, flags) all at once, or wait until that is possible; EAGAIN with IPC_NOWAIT. Source: semop(2)."""
    refuse_here("semop", "ipc")
    rows = tuple(operations)
    packed = b"".join(struct.pack("=Hhh", *row) for row in rows)
    invoke("semop", (semaphores, rows), libc.semop, semaphores, packed, len(rows))


def semctl(semaphores: int, command: int, values: list[int]) -> list[int]:
    """GETALL (``values`` as long as the set), SETALL, or IPC_RMID with no values: the values of the set. Source: semctl(2)."""
    refuse_here("semctl", "ipc")
    array = (ctypes.c_ushort * max(len(values), 1))(*values)
    invoke("semctl", (semaphores, 0, command), libc.semctl, semaphores, 0, command, ctypes.addressof(array))
    return list(array)[: len(values)]


def msgget(key: int, flags: int) -> int:
    """The id of the message queue with this key; as shmget. Source: msgget(2)."""
    refuse_here("msgget", "ipc")
    return int(invoke("msgget", (key, flags), libc.msgget, key, flags, key=key))


def msgsnd(queue: int, mtype: int, text: bytes, flags: int = 0) -> None:
    """Send a message of a type above 0; EAGAIN with IPC_NOWAIT when the queue is full. Source: msgsnd(2)."""
    refuse_here("msgsnd", "ipc")
    packed = struct.pack("l", mtype) + text
    invoke("msgsnd", (queue, mtype, text, flags), libc.msgsnd, queue, packed, len(text), flags)


def msgrcv(queue: int, size: int, mtype: int = 0, flags: int = 0) -> bytes:
    """The first message (of this type, when it is not 0); ENOMSG with IPC_NOWAIT when there is none. Source: msgrcv(2)."""
    refuse_here("msgrcv", "ipc")
    buffer = ctypes.create_string_buffer(struct.calcsize("l") + size)
    length = int(invoke("msgrcv", (queue, size, mtype, flags), libc.msgrcv, queue, buffer, size, mtype, flags))
    return buffer.raw[struct.calcsize("l") :][:length]


def msgctl(queue: int, command: int) -> None:
    """IPC_RMID: remove a message queue, and wake who waits for it. Source: msgctl(2)."""
    refuse_here("msgctl", "ipc")
    invoke("msgctl", (queue, command, None), libc.msgctl, queue, command, None)


def counts() -> dict[str, int]:
    """How many segments ("shm"), sets of semaphores ("sem") and queues ("msg") the caller's IPC namespace has; -1: not known.

    Source: SHM_INFO, SEM_INFO and MSG_INFO in shmctl(2), semctl(2) and msgctl(2).
    """
    found, buffer = {}, ctypes.create_string_buffer(512)
    for sort, (call, at) in _COUNTS.items():
        extra = (0,) if call == "semctl" else ()
        done = getattr(libc, call)(0, *extra, _INFO[call][0], buffer)
        found[sort] = struct.unpack_from("i", buffer, 4 * at)[0] if done >= 0 else -1
    return found


def remove_all() -> None:
    """Remove every System V object of the caller's IPC namespace, which has to be its own. Looking is not recorded."""
    refuse_here("remove_all", "ipc")
    buffer = ctypes.create_string_buffer(512)
    implied("else the kernel gives its memory back only a while after the namespace is gone")
    try:
        for call, (highest, at) in _INFO.items():
            control = getattr(libc, call)
            extra = (0,) if call == "semctl" else ()
            for index in range(control(0, *extra, highest, buffer) + 1):
                if (number := control(index, *extra, at, buffer)) >= 0:
                    invoke(call, (number, *extra, IPC_RMID), control, number, *extra, IPC_RMID, None)
    finally:
        implied("")
