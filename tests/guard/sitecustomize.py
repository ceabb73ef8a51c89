"""Python imports this by itself in each kernel that starts while `studies.guarded`.

It refuses a socket that leaves this machine, and an unpickled object that names code.
"""

import sys
from typing import Any

HERE = ("127.0.0.1", "::1", "localhost", "", None)


def refuse(event: str, details: tuple[Any, ...]) -> None:
    """Raise for an event (of `sys.addaudithook`) that no study may cause."""
    if event == "socket.connect" and isinstance(details[1], tuple):
        host = details[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = details[0]
    elif event == "pickle.find_class":
        raise RuntimeError(f"a study must not unpickle; {details[0]}.{details[1]}")
    else:
        return
    if host not in HERE:
        raise RuntimeError(f"a study must work without a network; {host}")


sys.addaudithook(refuse)
