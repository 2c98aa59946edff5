"""AF_XDP: frames handed to the driver past traffic control and past the egress hook."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct

_AF_XDP = 44
_SOL_XDP = 283
_MMAP_OFFSETS, _RX_RING, _TX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING = 1, 2, 3, 4, 5, 6
_PAGE_TX_RING = 0x80000000
_COPY = 1 << 1
_CHUNK = 4096
_SLOTS = 4

_LIBC = ctypes.CDLL(None, use_errno=True)


def _check(status: int, what: str) -> None:
    if status < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def transmit(device: str, frame: bytes) -> None:
    """Send one frame through an AF_XDP socket in copy mode, bound to the first queue."""
    descriptor = _LIBC.socket(_AF_XDP, socket.SOCK_RAW, 0)
    _check(descriptor, "socket")
    area = mmap.mmap(-1, _CHUNK * _SLOTS)
    try:
        area[: len(frame)] = frame
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        registration = struct.pack("=QQIIII", start, len(area), _CHUNK, 0, 0, 0)
        _set(descriptor, _UMEM_REG, registration)
        for ring in (_FILL_RING, _COMPLETION_RING, _TX_RING):
            _set(descriptor, ring, struct.pack("=I", _SLOTS))
        producer, slots = _tx_offsets(descriptor)
        with mmap.mmap(descriptor, slots + _SLOTS * 16, offset=_PAGE_TX_RING) as ring_memory:
            index = socket.if_nametoindex(device)
            address = struct.pack("=HHIII", _AF_XDP, _COPY, index, 0, 0)
            _check(_LIBC.bind(descriptor, address, len(address)), "bind")
            ring_memory[slots : slots + 16] = struct.pack("=QII", 0, len(frame), 0)
            ring_memory[producer : producer + 4] = struct.pack("=I", 1)
            _check(_LIBC.sendto(descriptor, None, 0, socket.MSG_DONTWAIT, None, 0), "send")
    finally:
        os.close(descriptor)


def _set(descriptor: int, option: int, value: bytes) -> None:
    status = _LIBC.setsockopt(descriptor, _SOL_XDP, option, value, len(value))
    _check(status, f"setsockopt {option}")


def _tx_offsets(descriptor: int) -> tuple[int, int]:
    """Where the producer index and the descriptors of the transmit ring lie."""
    # xdp_mmap_offsets: rx, tx, fill, completion; each producer, consumer, desc, flags
    room = ctypes.create_string_buffer(128)
    length = ctypes.c_uint32(len(room))
    status = _LIBC.getsockopt(descriptor, _SOL_XDP, _MMAP_OFFSETS, room, ctypes.byref(length))
    _check(status, "getsockopt")
    offsets = struct.unpack("=16Q", room.raw)
    return offsets[4], offsets[6]
