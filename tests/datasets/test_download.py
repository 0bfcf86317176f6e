"""Downloads, from servers on this machine that behave well or badly."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from npflow.datasets.download import fetch, md5_of
from npflow.errors import InputError

DATA = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Sends the server's data, or the range that is asked for; the flags below make it misbehave."""

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.requests.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        data, start = server.data, 0
        if wanted and server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if server.says_length:
            self.send_header("Content-Length", len(data) - start)
        self.end_headers()
        self.wfile.write(data[start : server.breaks_off_at])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.requests = DATA, []
        server.handle_error = lambda *request: None  # a client that has heard enough
        server.status, server.knows_ranges, server.says_length, server.breaks_off_at = 200, True, True, None
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path):
    url = f"http://127.0.0.1:{server.server_port}/some.tar.gz"
    return fetch(url, path, size=len(DATA), md5=MD5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "some.tar.gz"


@pytest.fixture
def part(path):
    path.parent.mkdir()
    return path.with_name("some.tar.gz.part")


def files(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_a_file_is_fetched_into_a_folder_that_is_made(server, path, capsys):
    assert get(server, path) == path
    assert path.read_bytes() == DATA
    assert files(path) == ["some.tar.gz"]
    assert server.requests == [None]
    assert "some.tar.gz: 100%" in capsys.readouterr().err


def test_what_is_there_is_not_fetched_again(server, path):
    get(server, path)
    get(server, path)
    assert len(server.requests) == 1


def test_a_download_that_breaks_off_is_resumed(server, path):
    server.breaks_off_at = 400_000
    with pytest.raises(InputError, match=r"expected 1,000,000 bytes from http.*, got 400,000: the connection broke off; "
                       "another call goes on from there"):  # fmt: skip
        get(server, path)
    assert files(path) == ["some.tar.gz.part"]
    server.breaks_off_at = 700_000
    with pytest.raises(InputError, match="got 700,000"):
        get(server, path)
    server.breaks_off_at = None
    get(server, path)
    assert path.read_bytes() == DATA
    assert files(path) == ["some.tar.gz"]
    assert server.requests == [None, "bytes=400000-", "bytes=700000-"]


def test_a_server_that_knows_no_ranges_starts_over(server, path, part):
    part.write_bytes(DATA[:300_000])
    server.knows_ranges = False
    get(server, path)
    assert path.read_bytes() == DATA
    assert server.requests == ["bytes=300000-"]


def test_a_part_that_is_whole_needs_no_server(server, path, part):
    part.write_bytes(DATA)
    get(server, path)
    assert files(path) == ["some.tar.gz"]
    assert server.requests == []


@pytest.mark.parametrize("there", [None, b"an old file"])
@pytest.mark.parametrize(
    "fault", ["another file", "another part", "too long", "too short", "404", "breaks off"]
)
def test_nothing_takes_the_place_of_a_file_before_it_is_verified(server, path, part, fault, there):
    if there:
        path.write_bytes(there)
    if fault == "another file":
        server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    elif fault == "another part":
        part.write_bytes(b"something else")
    elif fault == "too long":
        server.data = DATA + b"more"
    elif fault == "too short":
        server.data = b"<!DOCTYPE html>"
    elif fault == "404":
        server.status = 404
    elif fault == "breaks off":
        server.breaks_off_at = 10
    with pytest.raises(InputError, match="expected 1,000,000 bytes"):
        get(server, path)
    assert path.exists() == bool(there)
    assert not there or path.read_bytes() == there


def test_a_file_that_is_another_is_not_gone_on_with(server, path, part):
    part.write_bytes(b"something else")
    with pytest.raises(
        InputError, match=rf"got 1,000,000 bytes with [0-9a-f]{{32}}; {path.name} is not replaced"
    ):
        get(server, path)
    assert files(path) == []
    get(server, path)
    assert path.read_bytes() == DATA


def test_another_size_is_refused_before_anything_is_received(server, path):
    server.data = b"<!DOCTYPE html>"
    with pytest.raises(InputError, match="got 15 on offer"):
        get(server, path)
    assert files(path) == []


def test_a_server_that_does_not_say_how_much_it_sends_is_not_listened_to_for_ever(server, path):
    server.says_length = False
    server.data = DATA + bytes(5_000_000)
    with pytest.raises(InputError, match="expected 1,000,000 bytes with the MD5 checksum"):
        get(server, path)
    assert files(path) == []
    server.data = DATA
    get(server, path)
    assert path.read_bytes() == DATA


def test_what_went_wrong_is_said(server, path):
    server.status = 503
    with pytest.raises(InputError, match="got 0: HTTP Error 503: Service Unavailable"):
        get(server, path)
    server.status = 200
    with pytest.raises(InputError, match=r"got 0: .*refused"):
        fetch("http://127.0.0.1:1/some", path, size=1, md5=MD5)


def test_md5(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert md5_of(tmp_path / "file") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
