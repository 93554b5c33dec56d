"""From a model to a running server, and its clean end."""

import ipaddress
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from tiny_asr.serve.app import Service, build
from tiny_asr.serve.limits import Limits

if TYPE_CHECKING:
    from tiny_asr.model import ASRModel


def is_local(host: str) -> bool:
    """Whether only this machine can reach what is bound to this address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """Take the address; ValueError if it can't be had, or is open to others without a token."""
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError("the token has to be ASCII without spaces: choose another")
    if token is not None and len(token) < 16:
        raise ValueError(f"a token of {len(token)} characters came; expected at least 16")
    if token is None and not is_local(host):
        raise ValueError(
            f"--host {host} lets other machines in, and no token came; expected one: set "
            "TINY_ASR_TOKEN, or stay at 127.0.0.1"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(
            f"cannot listen at {host}, port {port} ({error}); expected a free address of this "
            "machine: choose another --port or --host"
        ) from error


def serve(
    model: "ASRModel", name: str, address: socket.socket, limits: Limits, token: str | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM; then what was accepted is finished, and nothing new taken.

    Args:
        model: an `ASRModel`.
        name: what clients ask for as `model`.
        address: what `listen` gave; it is closed at the end.
    """
    host, port = address.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    said = f"{name} is served at http://{host}:{port}/v1; Ctrl-C finishes what came, and stops"
    app = build(Service(model, name, limits, token), lambda: print(said, flush=True))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it is done
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[address])
