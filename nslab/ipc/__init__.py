"""System V IPC and POSIX message queues: made, used, listed and removed, in the IPC namespace of whoever calls.

    with nslab.Container(isolate="ipc") as web:
        segment = web.call(lambda: ipc.SharedMemory.create(key=0x77, size=4096))
        web.call(segment.write, b"hello")
        web.ipc()                                   # what is there, as a table

Each object is a value that says what it is called, and not a connection: its methods work in the namespace of the process in
which they are called, and so can be handed to call() of a container or a steered process. In an IPC namespace of one's own
everything goes with the namespace. In the machine's, where two processes may well share something, nslab touches only what
it made itself, and removes that when the container, the steered process or the notebook that made it has ended.
"""

from nslab.ipc.listing import Objects, look, objects
from nslab.ipc.memory import Attachment, SharedMemory
from nslab.ipc.messages import MessageQueue, PosixQueue
from nslab.ipc.semaphores import Semaphores

__all__ = ["Attachment", "MessageQueue", "Objects", "PosixQueue", "Semaphores", "SharedMemory", "look", "objects"]
