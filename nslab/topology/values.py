"""The values of a topology, checked one by one: names, subnets, addresses, rates, delays, losses; or SpecError saying where."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any

from nslab.errors import SpecError
from nslab.model.layout import RATES, TIMES
from nslab.network.names import check_name
from nslab.ops import spec

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

LOOPBACK = "lo"
RESERVED = {LOOPBACK, "localhost", "ip6-localhost", "ip6-loopback"}


def interface(where: str, name: Any) -> str:
    """A name that the kernel takes for an interface, keeps as it is, and that no network namespace has already."""
    if check_name(name, where) == LOOPBACK:
        raise SpecError(where, f"{name!r} is reserved: every network namespace has one")
    return str(name)


def node(name: Any) -> str:
    """A name for a node: for an interface (a switch is one), as a host name, and in a hosts file, where it is no address."""
    where = f"node {name!r}"
    interface(where, name)
    if name.casefold() in RESERVED:
        raise SpecError(where, "is reserved: it means something else in every hosts file")
    if "#" in name or not name.isprintable():
        raise SpecError(where, "has a character in it that no name in a hosts file may have. hosts(5)")
    if _is_address(name):
        raise SpecError(where, "would be taken for an address: let it have a letter that no number has, such as 'h1'")
    return str(name)


def _is_address(name: str) -> bool:
    """Whether programs take it for an address before they look for a name: "7" is 0.0.0.7. inet(3)"""
    try:
        socket.inet_aton(name)
    except OSError:
        return False
    return True


def subnet(where: str, text: Any) -> Subnet:
    """ "10.0.1.0/24": a network of hosts."""
    spec.text(where, text)
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SpecError(where, f"{text!r} is no subnet, such as '10.0.1.0/24' or 'fd00:1::/64'") from None
    if "/" not in text:
        raise SpecError(where, f"the subnet {text!r} has no length, as in '10.0.1.0/24'")
    if str(net.network_address) != str(ipaddress.ip_address(text.split("/")[0])):
        raise SpecError(where, f"{text} is an address in the subnet {net}; which of them is meant?")
    if net.is_loopback or net.is_multicast or net.is_link_local or net.is_unspecified or net.prefixlen == 0:
        raise SpecError(where, f"the subnet {text} is reserved by the protocol, and not for hosts")
    if net.prefixlen == net.max_prefixlen:
        raise SpecError(where, f"the subnet {text} has one address only, and a link has two ends")
    return net


def address(where: str, text: Any) -> tuple[Address, bool]:
    """ "10.0.1.5" or "10.0.1.5/24", and whether it had a length."""
    text = str(text)
    try:
        return ipaddress.ip_interface(text), "/" in text
    except ValueError:
        raise SpecError(where, f"{text!r} is no address, such as '10.0.1.5' or '10.0.1.5/24'") from None


def _rate(where: str, text: Any) -> int:
    """ "10mbit" -> bits a second. tc(8)"""
    return _quantity(where, "rate", text, RATES, "'10mbit' (bit, kbit, mbit or gbit a second)", 8000)


def _delay(where: str, text: Any) -> int:
    """ "5ms" -> microseconds. tc(8)"""
    return _quantity(where, "delay", text, TIMES, "'5ms' (us, ms or s)", 1)


def _quantity(where: str, what: str, text: Any, units: Mapping[str, int], example: str, least: int) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.lower()) if isinstance(text, str) else None
    if not match or match[2] not in units:
        raise SpecError(where, f"{what} {text!r} is not a number and its unit, as text: {example}")
    value = round(float(match[1]) * units[match[2]])
    unit = next(iter(units))
    if not least <= value < 2**40:
        raise SpecError(where, f"{what} {text!r} does not lie between {least} {unit} and {2**40 - 1} {unit}")
    return value


def _loss(where: str, text: Any) -> float:
    """ "1%" -> the percentage of frames that get lost."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text) if isinstance(text, str) else None
    if not match or not 0 < float(match[1]) <= 100:
        raise SpecError(where, f"loss {text!r} is not a percentage up to 100, as text: '1%'")
    return float(match[1])


def limits(where: str, rate: Any, delay: Any, loss: Any) -> tuple[int, int, float]:
    """All three, 0 for what is not given."""
    return (
        0 if rate is None else _rate(where, rate),
        0 if delay is None else _delay(where, delay),
        0.0 if loss is None else _loss(where, loss),
    )
