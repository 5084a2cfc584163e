#!/usr/bin/env python3
"""A poor link, where the kernel has no netem: carries Ethernet frames between two interfaces of its
network namespace, late and not all. Until SIGTERM.

    relay.py INTERFACE INTERFACE DELAY_MS DROPPED_PERCENT SEED

Frames must come whole: offloads_off() on what sends to either interface."""

import ctypes
import fcntl
import heapq
import random
import select
import signal
import socket
import struct
import sys
import time

ETH_P_ALL, PACKET_OUTGOING, SIOCETHTOOL = 3, 4, 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1f, 0x24
MOST_WAITING = 4096  # frames; more are dropped, as any queue would


def offloads_off(interface: str):
    """Of this thread's namespace: frames leave with their checksums, none larger than the MTU."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for command in (ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_STXCSUM):
            value = bytearray(struct.pack("II", command, 0))
            at = ctypes.addressof(ctypes.c_char.from_buffer(value))
            fcntl.ioctl(s, SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), at))


def open_on(interface: str) -> socket.socket:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((interface, 0))
    s.setblocking(False)
    return s


def relay(one: socket.socket, other: socket.socket, delay_s: float, dropped: float, rng):
    to, waiting, count = {one: other, other: one}, [], 0
    while True:
        left = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        for s in select.select(list(to), [], [], left)[0]:
            frame, address = s.recvfrom(65536)
            if address[2] != PACKET_OUTGOING and rng.random() >= dropped and len(waiting) < MOST_WAITING:
                count += 1
                heapq.heappush(waiting, (time.monotonic() + delay_s, count, to[s], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, out, frame = heapq.heappop(waiting)
            try:
                out.send(frame)
            except OSError:
                pass  # its queue is full, or the frame too long: dropped


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    one, other, delay_ms, percent, seed = sys.argv[1:]
    relay(open_on(one), open_on(other), float(delay_ms) / 1e3, float(percent) / 1e2,
          random.Random(int(seed)))


if __name__ == "__main__":
    main()
