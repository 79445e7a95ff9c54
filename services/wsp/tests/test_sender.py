"""One lane's HTTP side against a real loopback server: every reply kind, lost replies, tokens."""

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fp_runtime.errors import UserError
from fp_wsp.sender import Reply, Sender

LINES = (b"{}", b"{}")
GOOD = orjson.dumps({"classes": [["ADMITTED", "r1"], ["QUARANTINED", "NOT_JSON"]]})


class Tokens:
    """sender.Tokens: t0, and the next one after each refusal."""

    def __init__(self) -> None:
        self.n = 0

    def current(self) -> str:
        return f"t{self.n}"

    def refused(self, token: str) -> None:
        if token == self.current():
            self.n += 1


class Script:
    """What the server answers in turn: (status, body), or None to drop the connection; and what it was asked."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, bytes] | None] = []
        self.asked: list[tuple[dict[str, str], bytes]] = []


@pytest.fixture
def script() -> Script:
    return Script()


@contextmanager
def served(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that plays the script."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
            reply = script.replies.pop(0)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply[0])
            self.send_header("Content-Length", str(len(reply[1])))
            self.end_headers()
            self.wfile.write(reply[1])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with served(script) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway of a test")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "gateway.pem"
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(pem, *plain) + made.public_bytes(pem))
    return path


@pytest.fixture
def sender(url: str) -> Iterator[Sender]:
    made = Sender(url, "/v1/events", "run-1", Tokens(), timeout_s=5)
    yield made
    made.close()


def test_a_batch_travels_with_its_numbers(script: Script, sender: Sender) -> None:
    script.replies = [(200, GOOD)]
    answer = sender.post(3, 17, LINES, 99)
    assert (answer.reply, list(answer.classes)) == (Reply.CLASSED, [["ADMITTED", "r1"], ["QUARANTINED", "NOT_JSON"]])
    ((headers, body),) = script.asked
    assert body == b"{}\n{}"
    named = ("authorization", "fp-run", "fp-lane", "fp-lane-seq", "fp-frontier")
    assert [headers[name] for name in named] == ["Bearer t0", "run-1", "3", "17", "99"]


@pytest.mark.parametrize(
    ("status", "body", "reply", "unknown"),
    [
        (202, b'{"unknown":true}', Reply.AGAIN, True),
        (200, b'{"classes":[["ADMITTED","r1"]]}', Reply.AGAIN, False),
        (200, b"<html>", Reply.AGAIN, False),
        (200, b"[]", Reply.AGAIN, False),
        (200, b'{"classes":["ADMITTED","x"]}', Reply.AGAIN, False),
        (401, b'{"code":"TOKEN_EXPIRED"}', Reply.NEW_TOKEN, False),
        (403, b"{}", Reply.NEW_TOKEN, False),
        (408, b"{}", Reply.AGAIN, False),
        (413, b'{"code":"BODY_OVER_LIMIT"}', Reply.SPLIT, False),
        (429, b"{}", Reply.AGAIN, False),
        (500, b"oops", Reply.AGAIN, False),
        (503, b"{}", Reply.AGAIN, False),
        (400, b"{}", Reply.REFUSED, False),
        (404, b"", Reply.REFUSED, False),
        (409, b'{"code":"LANE_SEQ_GAP"}', Reply.REFUSED, False),
    ],
)
def test_every_status_asks_for_one_thing(
    script: Script, sender: Sender, status: int, body: bytes, reply: Reply, unknown: bool
) -> None:
    script.replies = [(status, body)]
    answer = sender.post(0, 1, LINES, 5)
    assert (answer.reply, answer.unknown) == (reply, unknown)


def test_a_lost_reply_is_the_same_batch_again(script: Script, sender: Sender) -> None:
    script.replies = [None, (200, GOOD)]
    assert sender.post(0, 1, LINES, 5).reply is Reply.AGAIN
    assert sender.post(0, 1, LINES, 5).reply is Reply.CLASSED
    assert script.asked[0][1] == script.asked[1][1]


def test_nobody_listening_is_again() -> None:
    sender = Sender("http://127.0.0.1:1", "/", "run-1", Tokens(), timeout_s=1)
    assert sender.post(0, 1, LINES, 5).reply is Reply.AGAIN


def test_a_refused_token_is_not_sent_twice(script: Script, sender: Sender) -> None:
    script.replies = [(401, b"{}"), (200, GOOD)]
    sender.post(0, 1, LINES, 5)
    sender.post(0, 1, LINES, 5)
    assert [headers["authorization"] for headers, _ in script.asked] == ["Bearer t0", "Bearer t1"]


@pytest.fixture
def tls_port(script: Script, certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with served(script, context) as port:
        yield port


def test_an_https_address_is_spoken_to_in_tls(
    script: Script, tls_port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    script.replies = [(200, GOOD)]
    sender = Sender(f"https://127.0.0.1:{tls_port}", "/v1/events", "run-1", Tokens(), timeout_s=5)
    assert sender.post(0, 1, LINES, 5).reply is Reply.CLASSED
    assert script.asked[0][0]["authorization"] == "Bearer t0"
    sender.close()


def test_a_server_that_cannot_prove_who_it_is_gets_no_token(script: Script, tls_port: int) -> None:
    sender = Sender(f"https://127.0.0.1:{tls_port}", "/v1/events", "run-1", Tokens(), timeout_s=5)
    answer = sender.post(0, 1, LINES, 5)
    assert (answer.reply, script.asked) == (Reply.AGAIN, [])
    assert "CERTIFICATE_VERIFY_FAILED" in answer.detail


@pytest.mark.parametrize(
    ("given", "port"), [("http://ig.example", 80), ("https://ig.example/", 443), ("https://ig.example:8443", 8443)]
)
def test_each_scheme_has_its_port(given: str, port: int) -> None:
    made = Sender(given, "/v1/events", "run-1", Tokens(), timeout_s=1)._connect()
    assert (made.host, made.port) == ("ig.example", port)


@pytest.mark.parametrize("given", ["ftp://ig.example", "ig.example:8080", "//ig.example", ""])
def test_any_other_scheme_is_a_mistake_of_the_operator(given: str) -> None:
    with pytest.raises(UserError, match="neither http nor https"):
        Sender(given, "/v1/events", "run-1", Tokens(), timeout_s=1)
