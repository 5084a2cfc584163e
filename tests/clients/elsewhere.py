"""Imported before a library that might talk to other hosts: what it asks of them, from its import on."""

import sys

asked: list[str] = []


def _watch(event: str, arguments: tuple):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in ("127.0.0.1", b"127.0.0.1", "localhost", "::1", None):
        asked.append(f"{event} {host}")


sys.addaudithook(_watch)
