"""Operations: what is to be done, as data.

An Op is a frozen dataclass with three readings: ``execute()`` does it in the process that it runs in, ``describe()`` says
it in a sentence, ``wrap()`` writes it for a shell. A Plan is a list of them with a command at the end. The same plan is
checked before anything is made, shipped to the spawner, run (at once or one op at a time), shown, and printed as a script.
"""

from nslab.ops.base import Context, Execute, Op, Plan
from nslab.ops.cgroups import InCgroup
from nslab.ops.covers import Mask, ReadOnly
from nslab.ops.fill import FillBusybox, Unpack
from nslab.ops.idmapped import Idmapped
from nslab.ops.ids import BecomeRoot, SetIds
from nslab.ops.interfaces import SetUp
from nslab.ops.mounts import Chdir, Chroot, Mount, MountProc, PivotRoot, SetPropagation, Umount
from nslab.ops.names import SetDomainname, SetHostname
from nslab.ops.objects import RemoveObjects
from nslab.ops.roots import BindInside, EnterRoot, MakeDev, MakeFolders, MakeLinks, MountInside
from nslab.ops.spaces import Adopt, Borrow, IdMaps, Join, NewNamespaces, NewTime, Setns, Unshare, WriteFile

__all__ = [
    "Adopt", "BecomeRoot", "BindInside", "Borrow", "Chdir", "Chroot", "Context", "EnterRoot", "Execute", "FillBusybox",
    "IdMaps", "Idmapped", "InCgroup", "Join", "MakeDev", "MakeFolders", "MakeLinks", "Mask", "Mount", "MountInside",
    "MountProc", "NewNamespaces", "NewTime", "Op", "PivotRoot", "Plan", "ReadOnly", "RemoveObjects", "SetDomainname",
    "SetHostname", "SetIds", "SetPropagation", "SetUp", "Setns", "Umount", "Unpack", "Unshare", "WriteFile",
]  # fmt: skip
