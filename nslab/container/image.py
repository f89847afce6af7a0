"""An OCI image layout on disk: which archives are the layers of the image. Source: the OCI Image Format Specification, 1.1.

What is named by a digest has to have it: a manifest when it is read here, a layer when it is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any

from nslab.errors import SpecError
from nslab.ops.fill import damaged

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})")
_MOST = 4 << 20  # bytes of an index or a manifest


def layers(folder: str) -> tuple[tuple[str, str], ...]:
    """The archives of the layers with their digests, the lowest first; SpecError for what is no image for this machine."""
    manifest = _manifest(folder, _load(f"{folder}/index.json"))
    found = tuple(_blob(folder, layer) for layer in manifest.get("layers", ()))
    if not found:
        raise SpecError("rootfs", f"the image in {folder} has no layers")
    return found


def _manifest(folder: str, index: dict[str, Any]) -> dict[str, Any]:
    """The first manifest for this machine, in an index that may name others."""
    here = ARCHITECTURES.get(os.uname().machine)
    for entry in index.get("manifests", ()):
        platform = entry.get("platform", {})
        if platform.get("architecture", here) == here and platform.get("os", "linux") == "linux":
            content = _load(*_blob(folder, entry))
            return _manifest(folder, content) if "manifests" in content else content
    raise SpecError("rootfs", f"{folder}/index.json names no image for linux on {here}")


def _blob(folder: str, entry: dict[str, Any]) -> tuple[str, str]:
    """Where the file that an entry names is, and its digest."""
    match = _DIGEST.fullmatch(str(entry.get("digest")))
    if not match:
        raise SpecError("rootfs", f"{entry.get('digest')!r} in {folder} is no digest")
    path = f"{folder}/blobs/{match[1]}/{match[2]}"
    if not os.path.isfile(path):
        raise SpecError("rootfs", f"the image in {folder} lacks {path}")
    return path, match[0]


def _load(path: str, digest: str = "") -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST)
    except OSError as error:
        raise SpecError("rootfs", f"{path} cannot be read: {error.strerror}") from None
    algorithm, _, wanted = digest.partition(":")
    if wanted and (found := hashlib.new(algorithm, text).hexdigest()) != wanted:
        raise SpecError("rootfs", damaged(path, digest, found))
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SpecError("rootfs", f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SpecError("rootfs", f"{path} is not a JSON object")
    return content
