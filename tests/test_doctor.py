"""The doctor: what it finds on this machine, and on made-up ones."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pwd
from pathlib import Path

import pytest

import nslab
from nslab.model import KINDS
from tests.helpers import in_python

ROOT = {"CapEff": "000001ffffffffff", "Uid": "0 0 0 0"}


def machine(folder, kinds=tuple(KINDS), files=None, status=None, mounts=None, **sysctls) -> str:
    """A folder that looks like the root of a machine: its kinds, files by path, /proc/self/status, mounts as (target, type,
    options of the filesystem), and sysctls (a__b is a/b)."""
    status = {"Uid": "1000 1000 1000 1000", "CapEff": "0", "Seccomp": "0", "NoNewPrivs": "0", **(status or {})}
    mounts = [("/", "ext4", "rw"), *(mounts or [])]
    lines = [
        f"{20 + number} 1 0:{number} / {target} rw - {fstype} {fstype} {options}"
        for number, (target, fstype, options) in enumerate(mounts)
    ]
    files = {
        **{f"proc/self/ns/{kind}": "" for kind in kinds},
        "proc/self/status": "".join(f"{name}:\t{value}\n" for name, value in status.items()),
        "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t1\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "".join(f"{line}\n" for line in lines),
        **{f"proc/sys/{name.replace('__', '/')}": f"{value}\n" for name, value in sysctls.items()},
        **(files or {}),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


CONTROLLERS = "sys/fs/cgroup/cgroup.controllers"
WHOLE = {
    CONTROLLERS: "cpu memory pids\n",
    "sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids\n",
    "sys/fs/cgroup/cgroup.procs": "",
}


def refusing(*kinds, number=errno.EPERM):
    """A probe: making these kinds fails."""

    def probe(kind: str) -> None:
        if kind in kinds:
            raise nslab.SyscallError("clone3", (), number)

    return probe


def test_case_a16_apparmor_restriction_is_named_with_its_remedy(tmp_path) -> None:
    report = nslab.doctor(machine(tmp_path, kernel__apparmor_restrict_unprivileged_userns=1))
    check = report["apparmor-userns"]
    assert check.status == "no"
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in check.remedy
    assert "profile" in check.remedy
    verdict = report["isolation"]
    assert verdict.status == "no"
    assert "apparmor-userns" in verdict.finding
    assert verdict.remedy == check.remedy
    assert not report.works


def test_apparmor_that_allows_is_fine(tmp_path) -> None:
    report = nslab.doctor(machine(tmp_path, kernel__apparmor_restrict_unprivileged_userns=0))
    assert report["apparmor-userns"].status == "yes"


@pytest.mark.parametrize(
    ("name", "sysctl", "value"),
    [("max-user-namespaces", "user__max_user_namespaces", 0), ("userns-clone", "kernel__unprivileged_userns_clone", 0)],
)
def test_a_sysctl_that_forbids_user_namespaces_is_named(tmp_path, name, sysctl, value) -> None:
    check = nslab.doctor(machine(tmp_path, **{sysctl: value}))[name]
    assert check.status == "no"
    assert sysctl.replace("__", ".") in check.remedy


def test_a_kernel_without_time_namespaces_is_named(tmp_path) -> None:
    check = nslab.doctor(machine(tmp_path, kinds=[kind for kind in KINDS if kind != "time"]))["kinds"]
    assert check.status == "partly"
    assert "time (Linux 5.6)" in check.finding

    assert "CONFIG_TIME_NS" in check.remedy


@pytest.mark.parametrize("sysctl", ["user__max_user_namespaces", "kernel__unprivileged_userns_clone"])
def test_root_is_not_kept_out_by_what_binds_ordinary_users(tmp_path, sysctl) -> None:
    report = nslab.doctor(machine(tmp_path, status=ROOT, **{sysctl: 0}))
    assert report.works
    assert "as root" in report["isolation"].finding


def test_a_kind_whose_limit_is_zero_is_named(tmp_path) -> None:
    check = nslab.doctor(machine(tmp_path, user__max_net_namespaces=0))["max-net-namespaces"]
    assert (check.status, check.remedy) == ("partly", "as root: sysctl user.max_net_namespaces=15000")


def test_a_seccomp_filter_is_the_culprit_when_user_namespaces_are_refused(tmp_path) -> None:
    tree = machine(tmp_path, status={"Seccomp": "2"})
    assert nslab.doctor(tree, probe=refusing())["seccomp"].status == "partly"
    report = nslab.doctor(tree, probe=refusing(*KINDS))
    assert report["seccomp"].status == "no"
    assert "seccomp=unconfined" in report["isolation"].remedy


def test_a_chroot_is_named(tmp_path) -> None:
    tree = machine(tmp_path)
    (tmp_path / "proc/self/mountinfo").write_text("20 1 0:1 / /proc rw - proc proc rw\n")
    report = nslab.doctor(tree)
    assert report["chroot"].status == "no"
    assert "chroot" in report["isolation"].finding


def test_a_masked_proc_is_named_and_a_harmless_mount_is_not(tmp_path) -> None:
    harmless = [("/proc", "proc", "rw"), ("/proc/sys/fs/binfmt_misc", "autofs", "rw")]
    assert nslab.doctor(machine(tmp_path, mounts=harmless))["proc"].status == "yes"
    check = nslab.doctor(machine(tmp_path, mounts=[*harmless, ("/proc/kcore", "tmpfs", "rw")]))["proc"]
    assert check.status == "partly"
    assert "/proc/kcore" in check.finding
    assert "systempaths=unconfined" in check.remedy


def test_no_new_privs_is_named(tmp_path) -> None:
    assert "newuidmap" in nslab.doctor(machine(tmp_path, status={"NoNewPrivs": "1"}))["no-new-privs"].finding


def test_newuidmap_is_missing_powerless_or_fine(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    tree = machine(tmp_path)
    assert nslab.doctor(tree)["newuidmap"].remedy == "as root: apt-get install uidmap"
    for tool in ("newuidmap", "newgidmap"):
        machine(tmp_path, files={f"usr/bin/{tool}": ""})
        (tmp_path / "usr/bin" / tool).chmod(0o755)
    assert "setuid" in nslab.doctor(tree)["newuidmap"].finding
    (tmp_path / "usr/bin/newuidmap").chmod(0o4755)
    assert nslab.doctor(tree)["newuidmap"].status == "yes"


def test_subordinate_ids_are_counted(tmp_path) -> None:
    remedy = nslab.doctor(machine(tmp_path))["subordinate-ids"].remedy
    assert remedy.startswith("as root: usermod") and remedy.endswith(f" {pwd.getpwuid(os.getuid()).pw_name}")
    tree = machine(tmp_path, files={"etc/subuid": f"{os.getuid()}:700000:65536\n"})
    assert nslab.doctor(tree)["subordinate-ids"].finding == "subordinate uids: 65536 from 700000"


@pytest.mark.parametrize(
    ("mounts", "files", "status", "found"),
    [
        ([("/sys/fs/cgroup", "cgroup2", "rw")], WHOLE, "yes", "v2, in "),
        ([("/sys/fs/cgroup", "cgroup2", "rw")], {**WHOLE, CONTROLLERS: "hugetlb\n"}, "partly", "has hugetlb"),
        ([("/sys/fs/cgroup/memory", "cgroup", "rw,memory")], {}, "partly", "mounted at"),
        ([], {}, "partly", "no hierarchy of v2 is mounted"),
    ],
    ids=["v2", "empty v2", "v1", "none"],
)
def test_case_a32_a_controller_is_found_where_it_is(tmp_path, mounts, files, status, found) -> None:
    check = nslab.doctor(machine(tmp_path, mounts=mounts, files=files))["cgroup.memory"]
    assert check.status == status
    assert found in check.finding
    assert bool(check.remedy) == (status != "yes")


@pytest.mark.parametrize("controller", ["pids", "memory", "cpu"])
def test_case_a32_the_doctor_says_what_limits_would(controller) -> None:
    able = nslab.doctor()[f"cgroup.{controller}"].status == "yes"
    try:
        nslab.run(
            "true", isolate="uts", limits={controller: 4 if controller == "cpu" else 1 << 28 if controller == "memory" else 50}
        )
    except nslab.Unavailable:
        assert not able
    else:
        assert able


def test_what_works_in_part_is_told_from_what_does_not_work_at_all(tmp_path) -> None:
    tree = machine(tmp_path)
    verdict = nslab.doctor(tree, probe=refusing("time"))["isolation"]
    assert verdict.status == "partly"
    assert "time" not in verdict.finding.partition(":")[2]
    assert nslab.doctor(tree, probe=refusing())["isolation"].status == "yes"
    nothing = nslab.doctor(tree, probe=refusing(*KINDS))
    assert not nothing.works
    assert "clone3() failed with EPERM" in nothing["isolation"].finding


@pytest.mark.requires("userns", "tool:setpriv")
def test_a_user_namespace_in_which_there_may_be_no_more_of_them() -> None:
    """Limits are each user namespace's own: without a capability, nothing is left to work in there."""
    script = "import json, nslab; r = nslab.doctor(); print(r.works, r['isolation'].finding)"
    setting = "echo 0 > /proc/sys/user/max_user_namespaces && exec "
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c", f'{setting} "$@"', "sh"]
    powerless = ["setpriv", "--securebits", "+noroot", "--inh-caps", "-all", "--bounding-set", "-all"]
    works, _, finding = in_python(script, inside).stdout.partition(" ")
    assert works == "True"
    assert finding.startswith("as root: ")
    assert "user" not in finding.split(": ")[1].split(", ")
    done = in_python(script, [*inside, *powerless])
    assert done.stdout == "False neither root nor user namespaces: max-user-namespaces\n", done.stderr


@pytest.mark.requires("userns", "tool:unshare")
def test_without_proc_that_is_what_stands_in_the_way() -> None:
    script = """
import os, nslab
from nslab.machines import doctor
report = doctor()
print(report.works, *[check.finding for check in report if check.status == "no"], sep="|")
try:
    nslab.run("true", isolate="uts")
except nslab.Unavailable as error:
    print(error)
"""
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    done = in_python(script, alone)
    first, *rest = done.stdout.splitlines()
    assert first.startswith("False|neither root nor user namespaces: proc|"), done.stderr
    assert rest[-1].endswith("what to do: as root: mount -t proc proc /proc")


@pytest.mark.requires("userns")
def test_a_spawner_that_cannot_be_started_says_why() -> None:
    script = """
import resource
import nslab
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
try:
    nslab.run("true")
except nslab.SpawnerError as error:
    print(error)
"""
    assert "could not be started: [Errno 24] Too many open files" in in_python(script).stdout


def test_this_machine_is_found_as_it_is() -> None:
    report = nslab.doctor()
    assert report["userns"].status == "yes"
    assert report["kinds"].finding.endswith(", ".join(kind for kind in KINDS if os.path.exists(f"/proc/self/ns/{kind}")))
    assert f"uid {os.geteuid()}" in report["privilege"].finding
    assert [check["name"] for check in json.loads(report.to_json())] == [check.name for check in report]


def test_a_missing_tool_names_its_package(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert nslab.doctor()["busybox"].remedy == "apt-get install busybox-static"


def test_a_user_without_a_name_is_given_subordinate_ids_by_number(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 98765)
    remedy = nslab.doctor(machine(tmp_path))["subordinate-ids"].remedy
    assert remedy == "as root: echo 98765:100000:65536 | tee -a /etc/subuid /etc/subgid"


def test_json_has_the_words_of_the_screen(tmp_path) -> None:
    report = nslab.doctor(machine(tmp_path))
    shown = {line.split()[1].rstrip(":"): line.split()[0] for line in str(report).splitlines() if line[:1].strip()}
    assert {check["name"]: check["status"] for check in json.loads(report.to_json())} == shown
    assert set(shown.values()) <= {"yes", "partly", "no"}


def test_B13_inotify_instances_are_counted_before_they_run_out(tmp_path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    before = counted(nslab.doctor()["inotify"])
    fds = [libc.inotify_init1(os.O_CLOEXEC) for _ in range(5)]
    try:
        check = nslab.doctor()["inotify"]
    finally:
        for fd in fds:
            os.close(fd)
    assert check.finding.startswith(f"{counted(check)} of {most} inotify instances")
    assert counted(check) >= 5
    assert counted(check) - before >= 3, "others come and go"
    few = machine(tmp_path, fs__inotify__max_user_instances=1)
    (tmp_path / "proc/4711/fd").mkdir(parents=True)
    (tmp_path / "proc/4711/fd/3").symlink_to("anon_inode:inotify")
    check = nslab.doctor(few)["inotify"]
    assert (check.status, check.remedy) == ("partly", "as root: sysctl fs.inotify.max_user_instances=1024")
    assert "Too many open files" in check.finding


def counted(check) -> int:
    return int(check.finding.split()[0])
