"""What is asked for, checked before anything is sent: names, addresses, MACs."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from typing import Any

from nslab.errors import SpecError

MAX_NAME = 15  # bytes: IFNAMSIZ with the 0 at the end
_REFUSED = b"/: \t\n\v\f\r\xa0"  # what the kernel takes for a separator; its isspace() counts 0xa0
_RESERVED = ("", ".", "..", "all", "default")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interfaced = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_name(name: Any, argument: str = "name") -> str:
    """An interface name as the kernel takes it: 1 to 15 bytes, without / : % and white space; SpecError otherwise.

    The kernel refuses a longer one with ERANGE, and makes d0 of "d%d"; "all" and "default" are folders of its sysctls.
    """
    if not isinstance(name, str):
        raise SpecError(argument, f"must be text, not {type(name).__name__}")
    raw = os.fsencode(name)
    if name in _RESERVED:
        raise SpecError(argument, f"{name!r} cannot name an interface")
    if len(raw) > MAX_NAME:
        raise SpecError(argument, f"{name!r} has {len(raw)} bytes; an interface name has at most {MAX_NAME}")
    for letter in name:
        if letter == "\0" or set(os.fsencode(letter)) & set(_REFUSED):
            raise SpecError(argument, f"{name!r} has {letter!r}, which no interface name may have")
        if letter == "%":
            raise SpecError(argument, f"{name!r} has '%', from which the kernel would make a number")
    return name


def check_mac(mac: Any, argument: str = "mac") -> bytes:
    """The six bytes of "02:00:00:00:00:01"; SpecError for one that is no address of a single interface."""
    if not isinstance(mac, str) or not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", mac):
        raise SpecError(argument, f"{mac!r} is not a MAC: six bytes as 02:00:00:00:00:01")
    raw = bytes.fromhex(mac.replace(":", ""))
    if raw[0] & 1 or not any(raw):
        raise SpecError(argument, f"{mac} is {'a group address' if raw[0] & 1 else 'no address'}, which no interface can have")
    return raw


def new_mac() -> str:
    """A random MAC, locally administered."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))


def check_mtu(mtu: Any) -> int:
    """SpecError unless it is a number of bytes that a frame may carry; below 1280 there is no IPv6."""
    if isinstance(mtu, bool) or not isinstance(mtu, int) or not 68 <= mtu <= 65535:
        raise SpecError("mtu", f"must be a whole number of bytes from 68 to 65535, not {mtu!r}")
    return mtu


def interfaced(text: Any) -> Interfaced:
    """ "10.0.0.1/24": an address and the length of its subnet, which must be said."""
    try:
        found = ipaddress.ip_interface(text)
    except ValueError as error:
        raise SpecError("address", f"{text!r} is not an address with a prefix, as 10.0.0.1/24 or fd00::1/64: {error}") from None
    if isinstance(text, str) and "/" not in text:
        raise SpecError("address", f"{text} says no prefix: {text}/24, or {found} for this one address alone")
    if found.is_multicast or found.is_unspecified:
        raise SpecError("address", f"{text} cannot be the address of an interface")
    network = found.network
    if network.version == 4 and network.prefixlen < 31 and found.ip in (network.network_address, network.broadcast_address):
        which = "network" if found.ip == network.network_address else "broadcast"
        raise SpecError("address", f"{found.ip} is the {which} address of {network}, not one for an interface")
    return found


def address(text: Any, argument: str) -> Address:
    """An address without a prefix."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise SpecError(argument, f"{text!r} is not an address, as 10.0.0.1 or fd00::1") from None


def destination(text: Any, other: Address | None) -> Subnet:
    """A subnet; "default" is all of the version of ``other`` (4 when there is none)."""
    if text == "default":
        return ipaddress.ip_network("::/0" if other is not None and other.version == 6 else "0.0.0.0/0")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SpecError("destination", f"{text!r} is neither 'default' nor a subnet, as 10.0.0.0/24: {error}") from None


def same_version(wanted: int, others: Iterable[tuple[str, Address | None]]) -> None:
    """SpecError for one that is of the other IP version."""
    for argument, other in others:
        if other is not None and other.version != wanted:
            raise SpecError(argument, f"{other} is of IP version {other.version}, the destination of {wanted}")
