"""What is loaded before the C library into user-mode Linux and its network: ptrace(2), clone(2), fork(2) as they need them.

User-mode Linux before 6.13 keeps 2,696 bytes of a process's extended registers, and hands them back with
ptrace(PTRACE_SETREGSET, NT_X86_XSTATE). The kernel takes only the whole, 11,008 bytes where the processor has AMX: the first
process dies, with "ptrace set fp regs failed, errno = 14". So these bytes are put at the head of a state of the right size,
which is asked for once, and that is passed on.

Both leave processes behind when they are killed. So what user-mode Linux traces gets PTRACE_O_EXITKILL besides the options that
it asks for, and what is made by clone(3) or fork(3) begins with prctl(PR_SET_PDEATHSIG, SIGKILL).
"""

from __future__ import annotations

import os
import struct
from typing import IO

_CODE = bytes.fromhex(
    "53 4883ec10 89fb 4989ca"  # long ptrace(request, pid, addr, data):
    "83ff15 7408 81ff00420000 7507 4981ca00001000"  # of PTRACE_SETOPTIONS, and of the old one: data |= PTRACE_O_EXITKILL
    "81ff05420000 755e 4881fa02020000 7555"  # unless it is PTRACE_SETREGSET of NT_X86_XSTATE: go on at plain
    "4c8d154a120000 49837a0800 7533"  # when our iovec has a length: go on at known
    "488d054c120000 498902 49c7420800400000"  # ours = (room, 16384)
    "4989c8 bf04420000 b865000000 0f05 4c89c1"  # ptrace(PTRACE_GETREGSET, pid, addr, &ours), which sets the length
    "4885c0 790a 49c7420800000000 eb3d"  # go on at known, or without a length at failed
    "4189f1 488b31 488b4908 498b3a f3a4 4489ce 89df"  # known: copy what data points to into ours
    "8d4bff 83f903 7303 4989e2"  # plain: of PTRACE_PEEK* the C library returns the word, which the kernel writes
    "b865000000 0f05 4885c0 7812"  # ptrace(request, pid, addr, data or &ours)
    "8d4bff 83f903 7304 488b0424 4883c410 5b c3"  # return the answer, or that word
    "89c3 ff15bb110000 f7db 8918 4883c8ff ebe8"  # failed: errno = -answer; return -1
    "53 4883ec10 4883e6f0 4883ee10 48890e 48897e08"  # int clone(fn, stack, flags, arg, ptid, tls, ctid): put fn, arg on stack
    "b827000000 0f05 89c3"  # parent = getpid()
    "89d7 4c89c2 4d89c8 4c8b542420 b838000000 0f05"  # clone(flags, stack, ptid, ctid, tls), in the order of the kernel
    "4885c0 78b8 75b0"  # in who asked: go on at failed, or return the answer
    "31ed e831000000 5f 58 ffd0"  # in the new one: bound(), and fn(arg)
    "89c7 b83c000000 0f05"  # end: exit(what it returned)
    "53 4883ec10 b827000000 0f05 89c3"  # pid_t fork(): parent = getpid()
    "ff1559110000 85c0 7584"  # return what the C library's __fork() does, or in the new one
    "e807000000 31c0 e978ffffff"  # bound(), and return 0
    "bf01000000 be09000000 b89d000000 0f05"  # bound: prctl(PR_SET_PDEATHSIG, SIGKILL)
    "b86e000000 0f05 39d8 75b7 c3"  # if getppid() is not parent, which has ended meanwhile: go on at end
)  # fmt: skip
_OWN = {"ptrace": 0, "clone": 0xBF, "fork": 0x10B}  # where they begin
_FOREIGN = ("__errno_location", "__fork")
_NAMES = b"".join(b"\0" + name.encode() for name in (*_OWN, *_FOREIGN)) + b"\0"
_SYMBOLS, _HASH, _RELOCATIONS, _STRINGS, _TEXT, _DATA = 0x120, 0x1B0, 0x1D8, 0x208, 0x240, 0x400  # where they lie in the file
_PAGE = 0x1000  # the data lies one page higher in memory: dynamic section, the addresses of _FOREIGN, ours, room
_ADDRESSES, _ROOM = _DATA + 11 * 16, 2 * 8 + 16 + 16384


def library() -> bytes:
    """The shared object, an ELF file. Source: elf(5)."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0
    )  # fmt: skip
    size = _ADDRESSES - _DATA
    segments = (
        (1, 5, 0, 0, _TEXT + len(_CODE), _TEXT + len(_CODE), _PAGE),  # to be loaded, read and executed
        (1, 6, _DATA, _PAGE + _DATA, size, size + _ROOM, _PAGE),  # to be loaded, read and written
        (2, 6, _DATA, _PAGE + _DATA, size, size, 8),  # the dynamic section
        (0x6474E551, 6, 0, 0, 0, 0, 16),  # a stack that is not executable
    )
    parts = {
        0: header,
        64: b"".join(struct.pack("<IIQQQQQQ", kind, flags, at, to, to, *sizes) for kind, flags, at, to, *sizes in segments),
        _SYMBOLS: bytes(24) + b"".join(map(_symbol, (*_OWN, *_FOREIGN))),
        _HASH: struct.pack("<9I", 1, 6, 1, 0, 2, 3, 4, 5, 0),  # one bucket, in which all five are
        _RELOCATIONS: b"".join(
            struct.pack("<QQq", _PAGE + _ADDRESSES + 8 * number, len(_OWN) + 1 + number << 32 | 6, 0)  # R_X86_64_GLOB_DAT
            for number in range(len(_FOREIGN))
        ),
        _STRINGS: _NAMES,
        _TEXT: _CODE,
        _DATA: struct.pack(
            "<22Q", 4, _HASH, 5, _STRINGS, 6, _SYMBOLS, 10, len(_NAMES), 11, 24, 7, _RELOCATIONS, 8, 48, 9, 24, *[0] * 6
        ),
    }
    image = bytearray(_ADDRESSES)
    for at, part in parts.items():
        image[at : at + len(part)] = part
    return bytes(image)


def _symbol(name: str) -> bytes:
    """The entry of a function, ours or the C library's."""
    at = _NAMES.index(b"\0" + name.encode() + b"\0") + 1
    return struct.pack("<IBBHQQ", at, 0x12, 0, *((1, _TEXT + _OWN[name], 1) if name in _OWN else (0, 0, 0)))


def image() -> IO[bytes]:
    """A file in memory with the shared object, for LD_PRELOAD=/proc/self/fd/N of what inherits it."""
    file = os.fdopen(os.memfd_create("nslab-preload", os.MFD_CLOEXEC), "w+b", buffering=0)
    file.write(library())
    return file
