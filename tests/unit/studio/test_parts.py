"""The parts of the Studio that need no browser: uploads, words, results, counts, guard, links and the start."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffground
from diffground.errors import UserError
from diffground.studio.found import Found, write_zip
from diffground.studio.guard import Guard, is_loopback
from diffground.studio.html import csv_html, found_html, pairs_html
from diffground.studio.index import SampleIndex
from diffground.studio.links import addresses, answering
from diffground.studio.shard_sets import ShardSet
from diffground.studio.statistics import count_categories, count_pairs, count_samples, draw_samples
from diffground.studio.uploads import read_upload
from diffground.studio.words import check_request, offered_words, typed_words
from tests.contract.test_imports import without
from tests.studio.studio_clone import NAMES, make_clone, write_synthetic

PHRASES = {"dog": "dog", "pottedplant": "potted plant"}


def test_uploads_are_read_upright_and_scaled_down(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(tmp_path / "turned.jpg", exif=exif)
    upload = read_upload(tmp_path / "turned.jpg", max_side=150)
    assert (upload.pixels.shape, upload.note) == ((150, 100, 3), "scaled down from 200 × 300 px")
    assert read_upload(tmp_path / "turned.jpg", max_side=300).note == ""


def test_uploads_that_are_no_pictures_are_named_as_the_user_named_them(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    (tmp_path / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.new("1", (8000, 5200)).save(tmp_path / "wide.png")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:90])
    for name, message in (
        ("x.png", "^x.png: not a picture that is read here; save it as BMP"),
        ("eps.png", "^eps.png: not a picture that is read here"),  # PIL would start Ghostscript
        ("wide.png", "^wide.png: has more than 40 megapixels"),
        ("cut.png", "^cut.png: not an image that can be read"),
    ):
        with pytest.raises(UserError, match=message):
            read_upload(tmp_path / name, max_side=100)


def test_words_of_the_vocabulary_are_chosen_and_other_words_are_offered():
    assert offered_words("a photograph of a unicorn near a potted plant and a dog", PHRASES) == (
        ["potted plant", "dog", "unicorn"],
        ["potted plant", "dog"],
    )
    assert offered_words("", PHRASES) == ([], [])
    assert typed_words(" dog , ,potted plant") == ["dog", "potted plant"]


@pytest.mark.parametrize(
    ("prompt", "words", "message"),
    [
        (" ", ["dog"], "the prompt is empty"),
        ("a dog", [], "choose at least one word"),
        ("a dog", ["cat"], "does not contain the words 'cat'"),
        ("a dog", [f"w{i}" for i in range(11)], "at most 10 words at a time, got 11"),
        ("dog " * 90, ["dog"], "must fit into 77 tokens"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(prompt, words, message):
    with pytest.raises(UserError, match=message):
        check_request(prompt, words, token_limit=77)


def found(maps, *, is_fixed=False):
    image = np.zeros((2, 2, 3), np.uint8)
    return Found(
        "<t>", image, ("dog", "cat"), maps, is_fixed, lambda masks, at: {"m": masks.tobytes(), "t": b"%g" % at}
    )


def test_a_pixel_goes_to_its_likeliest_word_from_the_threshold_on():
    maps = np.array([[[0.9, 0.4], [0.2, 0.6]], [[0.5, 0.3], [0.1, 0.7]]], np.float32)
    one = found(maps)
    assert one.masks(0.5).tolist() == [[[True, False], [False, False]], [[False, False], [False, True]]]
    assert one.masks(0.4)[0].tolist() == [[True, True], [False, False]]
    fixed = found(np.ones((2, 2, 2), bool), is_fixed=True)
    assert fixed.masks(0.9).all()


def test_a_zip_has_the_masks_of_its_threshold_and_the_same_bytes_each_time(tmp_path):
    one = found(np.full((2, 2, 2), 0.6, np.float32))
    write_zip([one], tmp_path / "a.zip", threshold=0.5)
    write_zip([one], tmp_path / "b.zip", threshold=0.5)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(write_zip([one], tmp_path / "c.zip", threshold=0.7)) as archive:
        assert (archive.read("m"), archive.read("t")) == (bytes(8), b"0.7")


def test_titles_and_cells_are_text_in_the_page():
    html = found_html([found(np.ones((2, 2, 2), np.float32))], shown=["dog"], threshold=0.5, opacity=0.5)
    assert "<t>" not in html and "&lt;t&gt;, with the masks of dog" in html
    assert "<script>" not in csv_html("c", "a,b\n<script>,<script>\n")


def test_numbers_of_a_table_have_one_decimal_and_the_rest_is_as_in_the_file():
    html = csv_html("c", "a,b,c,d,e\nx,84.16,3,88.4 ± 0.2,-1.0\n")
    assert [f"<td>{cell}</td>" in html for cell in ("84.2", "3", "88.4 ± 0.2", "-1.0")] == [True] * 4
    assert "<b>" not in pairs_html({("<b>", "c"): 1}, ["<b>", "c"])


def test_counts_of_the_known_samples(tmp_path):
    write_synthetic(tmp_path / "shards", num=7)
    index = SampleIndex(ShardSet("synthetic", "Synthetic", tmp_path / "shards", NAMES), tmp_path / "state")
    with index.rows() as rows:
        dog, cat = count_categories(rows)
        # the dog covers 600 of 4096 pixels, the cat 780; cats are in samples 0, 3 and 6
        assert (dog.name, dog.num, dog.missing, dog.sizes) == ("dog", 7, 0, (0, 0, 0, 7, 0, 0))
        assert (cat.name, cat.num, cat.sizes) == ("cat", 3, (0, 0, 0, 3, 0, 0))
        assert count_pairs(rows) == {("cat", "dog"): 3}
        assert count_samples(rows)[0] == 7
        assert sorted(draw_samples(rows, "cat", num=9, seed=0)) == [1, 4, 7]
        sheets = {tuple(draw_samples(rows, None, num=3, seed=seed)) for seed in range(20)}
        assert len(sheets) > 5 and draw_samples(rows, None, num=3, seed=4) == draw_samples(rows, None, num=3, seed=4)


def test_areas_without_a_summary_are_counted_from_the_label_map(tmp_path):
    write_synthetic(tmp_path / "shards", num=1)
    shards = ShardSet("synthetic", "Synthetic", tmp_path / "shards", NAMES)
    [place] = shards.places()
    record = {"prompt": "p", "categories": ["dog", "cat"]}
    assert shards._areas(place, record, ["dog", "cat"]) == {"dog": 600 / 4096, "cat": 780 / 4096}


def test_a_list_of_samples_is_a_file_that_sqlite_reads(tmp_path):
    write_synthetic(tmp_path / "shards", num=3)
    index = SampleIndex(ShardSet("synthetic", "Synthetic", tmp_path / "shards", NAMES), tmp_path / "state")
    with index.rows() as rows, pytest.raises(sqlite3.OperationalError, match="readonly"):
        rows.execute("DELETE FROM samples")


def test_loopback_addresses():
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "192.168.0.4", "example.org", "::")] == [False] * 4


def call(guard, *, method="GET", path="/", host="127.0.0.1:1", body=b""):
    """Status and body of the answer."""
    sent, scope = [], {"type": "http", "method": method, "path": path, "headers": [(b"host", host.encode())]}

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent), dict(sent[0]["headers"])


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_the_guard_lets_requests_for_uploaded_files_through_unchanged(tmp_path):
    guard = Guard(echo, host="127.0.0.1", uploads=tmp_path)
    body = json.dumps({"data": [[{"path": str(tmp_path / "a/x.png")}], 3]}).encode()
    status, answer, headers = call(guard, method="POST", body=body)
    assert (status, answer) == (200, body)
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert call(guard, host="localhost:7860")[0] == call(guard, host="[::1]:7860")[0] == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"host": "example.org"}, 421),
        ({"host": "127.0.0.1.example.org:80"}, 421),
        ({"path": "/gradio_api/file=HTTPS://example.org/x"}, 403),
        ({"path": "/gradio_api/file=http:/example.org/x"}, 403),
        ({"path": "/gradio_api/proxy=https://example.org"}, 403),
        ({"method": "POST", "body": b'{"data": [{"a": [{"path": "/etc/passwd"}]}]}'}, 403),
        ({"method": "POST", "body": b'{"data": [{"path": "../x"}]}'}, 403),
        ({"method": "POST", "body": b'{"data": [{"path": "https://example.org"}]}'}, 403),
        ({"method": "POST", "body": b'{"data": [{"path": "\\u0000"}]}'}, 403),
        ({"method": "POST", "body": b" " * (2**20 + 1)}, 413),
    ],
)
def test_the_guard_refuses(tmp_path, given, status):
    assert call(Guard(echo, host="127.0.0.1", uploads=tmp_path), **given)[0] == status


def test_a_path_out_of_the_folder_of_uploads_is_refused(tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up/link").symlink_to("/etc/passwd")
    guard = Guard(echo, host="0.0.0.0", uploads=tmp_path / "up")
    for path in (f"{tmp_path}/up/../secret", f"{tmp_path}/up/link", f"{tmp_path}/upper/x"):
        assert call(guard, method="POST", body=json.dumps({"path": path}).encode())[0] == 403
    assert call(guard, host="any.name")[0] == 200  # it listens for other machines, whatever they call it


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_only_servers_that_answer_are_linked_and_no_password_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert addresses("sqlite:///mlflow.db") == {"MLflow": "http://127.0.0.1:5000", "Prefect": "http://127.0.0.1:4200"}
    assert addresses("https://me:secret@host.example/x/")["MLflow"] == "https://host.example/x"
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect/up.json").write_text('{"prefect": "http://127.0.0.1:1", "mlflow": "javascript:alert(1)"}')
    assert addresses("sqlite:///mlflow.db") == {"Prefect": "http://127.0.0.1:1"}
    server = HTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = {"MLflow": f"http://127.0.0.1:{server.server_port}", "Prefect": "http://127.0.0.1:1"}
    assert list(answering(known)) == ["MLflow"]
    server.shutdown()
    server.server_close()


def test_without_gradio_one_line_says_what_to_install():
    code = "sys.argv[1:] = ['studio']\nfrom diffground.cli.main import main; main()"
    done = without(("gradio",), code)
    assert (done.returncode, done.stderr) == (
        2,
        "error: the Studio needs Gradio; run pip install 'diffground[studio]'\n",
    )


def start(folder, *arguments):
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, "-m", "diffground", "studio", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_an_address_that_cannot_be_used_and_a_folder_that_is_no_clone_are_one_line(tmp_path):
    (tmp_path / "clone").mkdir()
    clone = make_clone(tmp_path / "clone")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for folder, arguments, message in (
            (clone, ("--port", str(port)), f"error: 127.0.0.1:{port}: cannot be listened on (Address already in use)"),
            (clone, ("--port", "70000"), "error: --port must be 0 to 65535, got 70000"),
            (clone, ("--grounding", "nowhere"), "error: nowhere: no grounding module"),
            (tmp_path, (), "error: params.yaml"),
        ):
            done = start(folder, *arguments)
            assert done.returncode == 2
            assert done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr
