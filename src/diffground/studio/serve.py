"""Start the Studio's server."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from diffground.errors import UserError
from diffground.interface.model_choice import grounding_folder, segmenter_folder
from diffground.model_folders import check_grounding_folder, check_pipeline_folder
from diffground.reproduction import paths
from diffground.reproduction.config import load_params
from diffground.runtime.instruction_set import limit_instruction_set
from diffground.studio.guard import is_loopback

_LARGEST_PORT = 65535


def serve(*, host: str, port: int, grounding: Path | None = None, segmenter: Path | None = None) -> None:
    """Serve the Studio of the clone in the current directory until it is stopped.

    port: 0: any that is free. grounding, segmenter: model folders; None: those of the clone.
    Raises: UserError without Gradio, for an address that cannot be used, and for models that are not there.
    """
    if find_spec("gradio") is None:
        raise UserError("the Studio needs Gradio; run pip install 'diffground[studio]'")
    params = load_params(paths.PARAMS)
    g = params.generator
    check_pipeline_folder(g.checkpoint, config_from=g.config_from, loras=g.loras)
    chosen = grounding_folder(grounding)
    check_grounding_folder(chosen)
    listening = _listen(host, port)
    _settings_of_gradio()
    limit_instruction_set(params.runtime.instruction_set)
    # these take seconds
    import uvicorn

    from diffground.studio.app import build_app
    from diffground.studio.models import Models

    with tempfile.TemporaryDirectory(prefix="diffground-studio-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        # Gradio checks files that it hands out against Python's folder for temporary files
        tempfile.tempdir = folder
        models = Models(params, grounding=chosen, segmenter=segmenter_folder(segmenter))
        app = build_app(params, models, host=host, temporary=Path(folder))
        shown = f"[{host}]" if ":" in host else host
        print(f"diffground studio: http://{shown}:{listening.getsockname()[1]}", flush=True)
        if not is_loopback(host):
            print("warning: whoever reaches this address can use the Studio; there is no password", file=sys.stderr)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Raises: UserError for an address that cannot be used."""
    if not 0 <= port <= _LARGEST_PORT:
        raise UserError(f"--port must be 0 to {_LARGEST_PORT}, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{host}:{port}: cannot be listened on ({reason}); give another --host or --port") from None
    return listening


def _settings_of_gradio() -> None:
    """Read when Gradio and the Hugging Face packages are imported: no server is told anything."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_SSR_MODE"] = "False"
    os.environ["GRADIO_MCP_SERVER"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
