"""Against a real server on this machine, one that breaks off, ignores ranges, or is not there."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from diffground.errors import UserError
from diffground.reproduction.download import RemoteFile, download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """/whole sends ranges, /cut/N at most N bytes of what it announces, /deaf ignores ranges, /busy answers 503."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path == "/busy":
            self.send_error(503)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.path != "/deaf" else 0
        if start and start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        most = int(self.path.removeprefix("/cut/")) if self.path.startswith("/cut/") else len(CONTENT)
        self.wfile.write(CONTENT[start : start + most])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def remote(server, path, *, checksum=SHA256):
    return RemoteFile(f"http://127.0.0.1:{server.server_port}{path}", checksum, size_mb=3)


def test_a_file_is_fetched_once(server, tmp_path):
    path = tmp_path / "new/folder/file.zip"
    download(remote(server, "/whole"), path)
    download(remote(server, "/whole"), path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["file.zip"]


@pytest.mark.parametrize("kept", [1, 1_234_567, len(CONTENT) - 1])
def test_what_was_received_is_gone_on_from(server, tmp_path, kept):
    (tmp_path / "file.zip.partial").write_bytes(CONTENT[:kept])
    download(remote(server, "/whole"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == [f"bytes={kept}-"]


def test_a_partial_file_that_is_whole_is_taken(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(CONTENT)
    download(remote(server, "/whole"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    download(remote(server, "/cut/1100000"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1100000-", "bytes=2200000-"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(b"x" * 1000)
    download(remote(server, "/deaf"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_connection_that_yields_nothing_keeps_what_is_there(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(CONTENT[:2_000_000])
    with pytest.raises(UserError, match=r"/busy cannot be reached \(HTTP 503 .*\); .*; 2 MB are kept, or"):
        download(remote(server, "/busy"), tmp_path / "file.zip")
    with pytest.raises(UserError, match="connection ended after 0 of 1000000 bytes"):
        download(remote(server, "/cut/0"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip.partial").read_bytes() == CONTENT[:2_000_000]
    assert not (tmp_path / "file.zip").exists()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_the_checksum_decides(server, tmp_path, algorithm):
    good = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    bad = f"{good[:-1]}{'0' if good[-1] != '0' else '1'}"
    with pytest.raises(UserError, match=rf"not the published file \({bad}\); deleted, run this again"):
        download(remote(server, "/whole", checksum=bad), tmp_path / "file.zip")
    assert list(tmp_path.iterdir()) == []
    download(remote(server, "/whole", checksum=good), tmp_path / "file.zip")
    download(remote(server, "/whole", checksum=good[:15]), tmp_path / "file.zip")  # first digits, as torchvision's
    with pytest.raises(UserError, match=r"file\.zip: is not the published file .*; delete it and run this again"):
        download(remote(server, "/whole", checksum=bad), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_kept_bytes_of_another_file_do_not_survive(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="deleted, run this again"):
        download(remote(server, "/whole"), tmp_path / "file.zip")
    download(remote(server, "/whole"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_without_a_server_the_way_by_hand_is_told(server, tmp_path):
    file = remote(server, "/whole")
    server.shutdown()
    server.server_close()
    path = tmp_path / "folder/file.zip"
    with pytest.raises(UserError) as caught:
        download(file, path)
    message = str(caught.value)
    assert message.startswith(f"{file.url} cannot be reached (")
    assert "Connection refused" in message
    assert f"or place the file (3 MB, {file.checksum}) at {path} by hand and run this again" in message
    assert "\n" not in message
    assert not path.parent.exists()
