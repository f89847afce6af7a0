"""The ptrace(2) that a user-mode Linux needs on a processor with more registers than it knows.

User-mode Linux before 6.13 keeps 2,696 bytes of a process's extended registers, and hands them back with
ptrace(PTRACE_SETREGSET, NT_X86_XSTATE). The kernel takes only the whole, 11,008 bytes where the processor has AMX: the first
process dies, with "ptrace set fp regs failed, errno = 14". A shared object of a few instructions, loaded before the C library
(LD_PRELOAD), puts these bytes at the head of a state of the right size, which it asks for once, and passes that on. All other
requests go to the kernel as they are.
"""

from __future__ import annotations

import os
import struct
from typing import IO

_CODE = bytes.fromhex(
    "53 4883ec10 89fb 4989ca"  # long ptrace(request, pid, addr, data):
    "81ff05420000 755e 4881fa02020000 7555"  # unless it is PTRACE_SETREGSET of NT_X86_XSTATE: go on at plain
    "4c8d15d6110000 49837a0800 7533"  # when our iovec has a length: go on at known
    "488d05d8110000 498902 49c7420800400000"  # ours = (room, 16384)
    "4989c8 bf04420000 b865000000 0f05 4c89c1"  # ptrace(PTRACE_GETREGSET, pid, addr, &ours), which sets the length
    "4885c0 790a 49c7420800000000 eb3d"  # go on at known, or without a length at failed
    "4189f1 488b31 488b4908 498b3a f3a4 4489ce 89df"  # known: copy what data points to into ours
    "8d4bff 83f903 7303 4989e2"  # plain: of PTRACE_PEEK* the C library returns the word, which the kernel writes
    "b865000000 0f05 4885c0 7812"  # ptrace(request, pid, addr, data or &ours)
    "8d4bff 83f903 7304 488b0424 4883c410 5b c3"  # return the answer, or that word
    "89c3 ff154f110000 f7db 8918 4883c8ff ebe8"  # failed: errno = -answer; return -1
)  # fmt: skip
_NAMES = b"\0ptrace\0__errno_location\0"
_SYMBOLS, _HASH, _RELOCATIONS, _STRINGS, _TEXT, _DATA = 0x120, 0x168, 0x180, 0x198, 0x1C0, 0x300  # where they lie in the file
_PAGE = 0x1000  # the data lies one page higher in memory: dynamic section, address of __errno_location, ours, room
_ERRNO, _ROOM = _DATA + 11 * 16, 8 + 16 + 16384


def library() -> bytes:
    """The shared object, an ELF file. Source: elf(5)."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0
    )  # fmt: skip
    size = _ERRNO - _DATA
    segments = (
        (1, 5, 0, 0, _TEXT + len(_CODE), _TEXT + len(_CODE), _PAGE),  # to be loaded, read and executed
        (1, 6, _DATA, _PAGE + _DATA, size, size + _ROOM, _PAGE),  # to be loaded, read and written
        (2, 6, _DATA, _PAGE + _DATA, size, size, 8),  # the dynamic section
        (0x6474E551, 6, 0, 0, 0, 0, 16),  # a stack that is not executable
    )
    parts = {
        0: header,
        64: b"".join(struct.pack("<IIQQQQQQ", kind, flags, at, to, to, *sizes) for kind, flags, at, to, *sizes in segments),
        _SYMBOLS: bytes(24) + struct.pack("<IBBHQQIBBHQQ", 1, 0x12, 0, 1, _TEXT, len(_CODE), 8, 0x12, 0, 0, 0, 0),
        _HASH: struct.pack("<6I", 1, 3, 1, 0, 2, 0),  # one bucket, in which both symbols are
        _RELOCATIONS: struct.pack("<QQq", _PAGE + _ERRNO, 2 << 32 | 6, 0),  # R_X86_64_GLOB_DAT
        _STRINGS: _NAMES,
        _TEXT: _CODE,
        _DATA: struct.pack(
            "<22Q", 4, _HASH, 5, _STRINGS, 6, _SYMBOLS, 10, len(_NAMES), 11, 24, 7, _RELOCATIONS, 8, 24, 9, 24, *[0] * 6
        ),
    }
    image = bytearray(_ERRNO)
    for at, part in parts.items():
        image[at : at + len(part)] = part
    return bytes(image)


def image() -> IO[bytes]:
    """A file in memory with the shared object, for LD_PRELOAD=/proc/self/fd/N of what inherits it."""
    file = os.fdopen(os.memfd_create("nslab-regsets", os.MFD_CLOEXEC), "w+b", buffering=0)
    file.write(library())
    return file
