"""What is true of UTS namespaces, each fact shown by the kernel. uts_namespaces(7)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import nslab
from nslab import syscalls
from nslab.model import KINDS
from tests.helpers import link

UTS = KINDS["uts"].flag


def test_uts_01_a_new_namespace_starts_with_its_creators_names() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("alpha")
        process.setdomainname("example")
        before = link("uts", process.pid)
        process.unshare("uts")
        assert link("uts", process.pid) != before
        assert process.run("uname -n; cat /proc/sys/kernel/domainname").lines == ["alpha", "example"]


def test_uts_02_a_new_name_inside_leaves_the_outer_one() -> None:
    name = os.uname().nodename
    assert nslab.run("hostname", isolate="uts", hostname="beta").stdout == "beta\n"
    assert os.uname().nodename == name != "beta"


def test_uts_03_the_domain_name_is_private_too() -> None:
    file = Path("/proc/sys/kernel/domainname")
    name = file.read_text()
    with nslab.Container(isolate="uts", domainname="inside.example") as web:
        assert web.run(["cat", file]).stdout == "inside.example\n"
        assert file.read_text() == name != "inside.example\n"


def test_uts_04_the_members_of_one_namespace_see_one_name() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        with process.fork() as one, process.fork() as other:
            one.sethostname("shared")
            assert other.gethostname() == process.gethostname() == "shared"


def test_uts_05_siblings_have_different_names_at_the_same_time() -> None:
    with nslab.Container(isolate="uts", hostname="a") as a, nslab.Container(isolate="uts", hostname="b") as b:
        assert (a.run("hostname").stdout, b.run("hostname").stdout) == ("a\n", "b\n")
        a.run("hostname c", check=True)
        assert (a.run("hostname").stdout, b.run("hostname").stdout) == ("c\n", "b\n")


def test_uts_06_without_cap_sys_admin_there_is_no_new_one() -> None:
    with nslab.process(as_="ordinary") as process:
        for ask in (syscalls.unshare, syscalls.clone3):
            with pytest.raises(nslab.SyscallError, match="needs CAP_SYS_ADMIN") as caught:
                process.call(ask, UTS)
            assert (caught.value.call, caught.value.name) == (ask.__name__, "EPERM")


def test_uts_07_the_inherited_name_is_a_snapshot() -> None:
    with nslab.process() as parent:
        parent.unshare("uts")
        parent.sethostname("before")
        with parent.fork() as child:
            child.unshare("uts")
            parent.sethostname("after")
            assert (child.gethostname(), parent.gethostname()) == ("before", "after")


def test_uts_08_the_kernel_is_the_same_everywhere() -> None:
    with nslab.Container(isolate="uts", hostname="web") as web:
        inside, outside = web.call(os.uname), os.uname()
        assert inside.nodename == "web" != outside.nodename
        assert (inside.sysname, inside.release, inside.version, inside.machine) == (
            (outside.sysname, outside.release, outside.version, outside.machine)
        )


def test_uts_09_joining_the_earlier_namespace_brings_its_name_back() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("first")
        with process.namespaces["uts"] as saved:
            process.unshare("uts")
            process.sethostname("second")
            process.setns(saved)
            assert process.gethostname() == "first"
            assert link("uts", process.pid) == str(saved)


def test_uts_10_capabilities_below_do_not_reach_an_ancestors_namespace() -> None:
    with nslab.process() as process:
        process.unshare("uts")
        process.sethostname("above")
        process.unshare("user")
        with pytest.raises(nslab.SyscallError, match="lacks CAP_SYS_ADMIN") as caught:
            process.sethostname("below")
        assert (caught.value.name, process.gethostname()) == ("EPERM", "above")
        process.unshare("uts")
        process.sethostname("below")
        assert process.gethostname() == "below"
