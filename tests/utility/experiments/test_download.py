"""Downloads that are whole, verified and named, or not kept."""

import contextlib
import hashlib
import http.server
import threading

import pytest
import torch

from mynah.utility.errors import UserError
from mynah.utility.experiments import download as module
from mynah.utility.experiments.download import download


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the server's `content`, announcing `announced` bytes; counts its answers."""

    def do_GET(self):
        self.server.answers += 1
        if self.server.wait is not None:
            self.server.wait.wait(10)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.announced or len(self.server.content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client may have seen enough
            self.wfile.write(self.server.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = tmp_path / "weights.ckpt"
    torch.save({"a": torch.zeros(100)}, file)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.content, made.announced, made.answers, made.status, made.wait = file.read_bytes(), None, 0, 200, None
        made.url = f"http://127.0.0.1:{made.server_port}/models/weights.ckpt"
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def kept(tmp_path):
    return [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


def test_a_file_is_downloaded_once_and_its_digest_compared(server):
    digest = hashlib.sha256(server.content).hexdigest()
    path = download(f"{server.url}#sha256={digest}")
    assert path.read_bytes() == server.content
    assert download(server.url) == path and server.answers == 1


def test_another_digest_is_refused_and_the_file_removed(server, tmp_path):
    with pytest.raises(UserError, match=r"weights\.ckpt#sha256=0+: its SHA-256 is [0-9a-f]{64}, not the one given"):
        download(f"{server.url}#sha256={'0' * 64}")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("fragment", ["sha256=12", "md5=abc", "x", "sha256=" + "g" * 64])
def test_a_fragment_that_is_no_digest_is_refused_before_anything_is_asked(server, fragment):
    with pytest.raises(UserError, match="expected sha256= and 64 hexadecimal digits"):
        download(f"{server.url}#{fragment}")
    assert server.answers == 0


def test_less_than_was_announced_is_not_kept(server, tmp_path):
    server.announced = len(server.content) + 5
    with pytest.raises(UserError, match="could not be downloaded") as error:
        download(server.url)
    assert server.url in str(error.value) and kept(tmp_path) == []


def test_what_is_damaged_is_not_kept_and_the_copy_is_named(server, tmp_path):
    server.content = server.content[:-200] + bytes(200)
    with pytest.raises(UserError, match=r"weights\.ckpt: .*\(the copy .* was removed; the next run"):
        download(server.url)
    assert kept(tmp_path) == []


def test_a_server_that_says_nothing_is_given_up(server, tmp_path, monkeypatch):
    server.wait = threading.Event()
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with pytest.raises(UserError, match=r"could not be downloaded .*timed out"):
        download(server.url)
    server.wait.set()
    assert kept(tmp_path) == []


def test_an_answer_of_not_found_is_one_line(server, tmp_path):
    server.status = 404
    with pytest.raises(UserError, match="could not be downloaded") as error:
        download(server.url)
    assert "404" in str(error.value) or "Not Found" in str(error.value)
    assert len(str(error.value).splitlines()) == 1 and kept(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    ["http://", "https:///x", "ftp://host/x", "http://[::1", "http://host:99999/x", "http://ho st/x", "file:///etc/passwd",
     "http://host/\x00", "http://host\n/x", "gopher://a"],
)  # fmt: skip
def test_odd_urls_are_one_line(url):
    with pytest.raises(UserError, match="not a URL that can be downloaded") as error:
        download(url)
    assert len(str(error.value).splitlines()) == 1


def test_plain_http_is_warned_of(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_fetch", lambda address, path: (_ for _ in ()).throw(UserError("not now")))
    with pytest.raises(UserError, match="not now"):
        download("http://example.org/a.ckpt")
    assert "plain http lets others change the file on its way" in caplog.text
    caplog.clear()
    with pytest.raises(UserError, match="not now"):
        download("https://example.org/a.ckpt")
    assert not caplog.text
