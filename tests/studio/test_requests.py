"""What the Studio's server refuses, whoever asks."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest


def ask(server, method, path, body=None, **headers):
    """Status and text of the answer; the path is sent as it is."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request(method, f"/{path}", body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../../../etc/passwd",
        "gradio_api/file=params.yaml",
        "gradio_api/file=https://example.org/x.png",
        "gradio_api/proxy=https://example.org/x.png",
        "report/%2e%2e/params.yaml",
        "report/../params.yaml",
    ],
)
def test_no_other_file_and_no_other_server_is_read(server, path):
    status, body = ask(server, "GET", path)
    assert status in (403, 404)
    assert "root:" not in body and "profile" not in body


def test_a_request_that_names_a_file_that_was_not_uploaded_is_refused(server, clone):
    for path in ("/etc/passwd", "../../etc/passwd", str(clone / "params.yaml"), "https://example.org/x.png"):
        file = {"path": path, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
        body = {"data": [[file], "Words", "dog", "", 0.5, 0.5], "fn_index": 0, "session_hash": "x"}
        refused = (403, "a request may name only files that were uploaded\n")
        assert ask(server, "POST", "gradio_api/queue/join", json.dumps(body)) == refused
    assert ask(server, "GET", "", host="example.org")[0] == 421
