"""Start Ray on this machine, or connect to an existing cluster."""

from __future__ import annotations

import os
import socket
from typing import Any

from diffground.errors import InfrastructureError, UserError, in_one_line

_CONNECT_TIMEOUT_S = 20.0


def connect(address: str, *, num_cpus: int) -> bool:
    """Connect this process to the Ray at `address`; with '' to a new one of `num_cpus` on this machine, which listens
    only on loopback. Returns: False if this process was already connected.

    Raises: UserError for an invalid address, InfrastructureError if no Ray answers or starts.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {}
    if not address:
        # makes Ray listen on 127.0.0.1, on Linux too; it is read at import
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # the workers are the stage, no work in the background
        own = {"include_dashboard": False, "num_cpus": num_cpus}
    import ray

    if ray.is_initialized():
        return False
    try:
        if address:
            _require_listener(address)
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, RuntimeError, ValueError) as error:
        if not address:
            raise InfrastructureError(f"Ray does not start on this machine ({in_one_line(error)})") from None
        if isinstance(error, ValueError):
            raise UserError(
                f"runtime.ray_address must be '', 'auto' or 'host:port', got '{address}' ({in_one_line(error)})"
            ) from None
        raise InfrastructureError(
            f"runtime.ray_address: no Ray cluster answers at '{address}' ({in_one_line(error)}); start one with "
            "`ray start --head`, or leave it empty to start one on this machine only"
        ) from None
    return True


def _require_listener(address: str) -> None:
    """Raises: OSError if nothing listens at host:port (Ray would wait for minutes); ValueError for an invalid port."""
    host, _, port = address.rpartition(":")
    if host:
        if not (port.isdecimal() and 0 < int(port) < 2**16):
            raise ValueError(f"'{port}' is not a port")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
