"""Imported by a server under test (it is first on PYTHONPATH): notes every look at the network beyond loopback.

One line for each name looked up or address connected to, in the file that NETWORK_RECORD names.
"""

import os
import sys

LOOPBACK = {"127.0.0.1", "::1", "localhost", "", None}


def note(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    if host not in LOOPBACK:
        with open(os.environ["NETWORK_RECORD"], "a") as record:  # noqa: PTH123 - pathlib may not be imported yet
            record.write(f"{event} {host}\n")


if "NETWORK_RECORD" in os.environ:
    sys.addaudithook(note)
