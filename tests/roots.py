"""Root filesystems to test with, made by hand of the static busybox: a folder, a tar file, an OCI image layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

COMMANDS = [
    "sh",
    "cat",
    "ls",
    "touch",
    "rm",
    "id",
    "sed",
    "readlink",
    "uname",
    "echo",
    "mount",
    "stat",
    "sleep",
    "true",
    "pwd",
    "mkdir",
    "head",
    "wc",
]


def folder(at: Path) -> Path:
    """A root with a few commands and a file, and none of the folders that every root gets."""
    (at / "bin").mkdir(parents=True)
    (at / "etc").mkdir()
    (at / "etc" / "name").write_text("folder\n")
    shutil.copy(str(shutil.which("busybox")), at / "bin" / "busybox")
    for command in COMMANDS:
        (at / "bin" / command).symlink_to("busybox")
    return at


def tar(at: Path, name: str = "root.tar.gz") -> Path:
    """The same as an archive."""
    with tarfile.open(at / name, f"w:{name.rpartition('.')[2].replace('tar', '')}") as archive:
        archive.add(folder(at / "tree"), ".")
    return at / name


def layer(members: Mapping[str, str | tuple[str, str] | None], mode: int = 0o644) -> bytes:
    """A tar of files (text), folders (None) and links (("link", its text), ("hard", its target))."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if content is None else mode
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            data = content.encode() if isinstance(content, str) else b""
            if isinstance(content, tuple):
                member.type, member.linkname = (tarfile.SYMTYPE if content[0] == "link" else tarfile.LNKTYPE), content[1]
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def image(at: Path, *layers: bytes) -> Path:
    """An OCI image layout with these layers above that of folder(): the second one is gzipped, the rest are not."""
    blobs = at / "image" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    root = tar(at, "lowest.tar").read_bytes()

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    found = [blob(gzip.compress(data) if index == 1 else data, "layer.v1.tar") for index, data in enumerate((root, *layers))]
    here = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    manifest = {"schemaVersion": 2, "config": blob(b"{}", "config.v1+json"), "layers": found}
    named = blob(json.dumps(manifest).encode(), "manifest.v1+json") | {"platform": {"architecture": here, "os": "linux"}}
    other = {"digest": "sha256:" + "0" * 64, "platform": {"architecture": "other", "os": "linux"}}
    (at / "image" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [other, named]}))
    (at / "image" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return at / "image"
