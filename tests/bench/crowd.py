"""A crowd to look at: python crowd.py PROCESSES NAMESPACES. All end with their parent, which ends with its standard input."""

import ctypes
import os
import signal
import sys

KINDS = (0x04000000, 0x08000000, 0x40000000, 0x00020000)  # uts, ipc, net, mnt: each process that unshares makes one of each

libc = ctypes.CDLL(None, use_errno=True)
processes, namespaces = map(int, sys.argv[1:3])
told, tells = os.pipe()
for number in range(processes):
    if os.fork() == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if number < namespaces // len(KINDS) and libc.unshare(sum(KINDS)):
            os.write(2, b"unshare failed\n")
        os.write(tells, b".")
        while True:
            signal.pause()
ready = 0
while ready < processes:
    ready += len(os.read(told, 4096))
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
