"""Captures as files for Wireshark: pcapng, with the name of each interface and nanoseconds. The blocks are dpkt's."""

from __future__ import annotations

from collections.abc import Sequence

from nslab.network.decoding import Raw

_NAME, _RESOLUTION, _FLAGS = 2, 9, 2  # options: if_name and if_tsresol of an interface, epb_flags of a packet
_NANOSECONDS = 9
_DIRECTIONS = {"in": 1, "out": 2}


def dump(frames: Sequence[Raw]) -> bytes:
    """All of it as one section. https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html"""
    from dpkt import pcapng

    def end() -> pcapng.PcapngOptionLE:
        return pcapng.PcapngOptionLE(code=pcapng.PCAPNG_OPT_ENDOFOPT, len=0)

    places = list(dict.fromkeys((raw.node, raw.interface) for raw in frames))
    blocks = [pcapng.SectionHeaderBlockLE()]
    for node, interface in places:
        name = f"{node} {interface}".strip().encode(errors="replace")
        options = [
            pcapng.PcapngOptionLE(code=_NAME, data=name),
            pcapng.PcapngOptionLE(code=_RESOLUTION, data=bytes([_NANOSECONDS])),
            end(),
        ]
        blocks.append(pcapng.InterfaceDescriptionBlockLE(snaplen=0, opts=options))
    for raw in frames:
        flags = _DIRECTIONS[raw.direction].to_bytes(4, "little")
        blocks.append(
            pcapng.EnhancedPacketBlockLE(
                iface_id=places.index((raw.node, raw.interface)),
                ts_high=raw.time >> 32,
                ts_low=raw.time & 0xFFFFFFFF,
                caplen=len(raw.data),
                pkt_len=raw.length,
                pkt_data=raw.data,
                opts=[pcapng.PcapngOptionLE(code=_FLAGS, data=flags), end()],
            )
        )
    return b"".join(map(bytes, blocks))
