"""A connection to a broker with one fetch under way at a time, without a thread or an event loop of its own."""

import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from fp_runtime.kafka_wire import Place, request

CONNECT_TIMEOUT_S = 5.0
ANSWER_S = 30.0  # behind the longest wait that was asked for; then the connection is given up
_CHUNK = 1_048_576


class Link:
    """A fetch is sent with `ask`; `answer` gives its response once it is there. Every method raises OSError."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self._client_id = client_id
        self._socket = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        self._socket.settimeout(None)  # with one, Python would wait before every recv, whatever its flags say
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sent = 0
        self._late_at = 0.0
        self._held = bytearray()
        self.asked: Mapping[Place, int] = {}
        """What is under way: offsets by place; empty = nothing."""

    def fileno(self) -> int:
        """For select and poll."""
        return self._socket.fileno()

    def ask(self, asked: Mapping[Place, int], max_wait_ms: int, min_bytes: int, max_bytes: int) -> None:
        """Ask for records from these offsets on; the broker answers with `min_bytes` or after `max_wait_ms`."""
        self._sent += 1
        self._socket.sendall(request(self._sent, self._client_id, asked, max_wait_ms, min_bytes, max_bytes))
        self.asked = asked
        self._late_at = time.monotonic() + max_wait_ms / 1_000 + ANSWER_S

    def late(self) -> bool:
        """Whether the answer should have been here long ago."""
        return bool(self.asked) and time.monotonic() > self._late_at

    def answer(self) -> bytes | None:
        """The response behind its number, None while it is not whole; waits for nothing."""
        while (missing := self._missing()) > 0:
            try:
                chunk = self._socket.recv(min(missing, _CHUNK), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not chunk:
                raise ConnectionResetError("the broker closed the connection")
            self._held += chunk
        frame, self._held = bytes(self._held), bytearray()
        self.asked = {}
        if int.from_bytes(frame[4:8], "big") != self._sent:
            raise ConnectionResetError("the broker answered another request")
        return frame[8:]

    def _missing(self) -> int:
        """Bytes of the frame that have not come: its size and number first."""
        held = len(self._held)
        return 8 - held if held < 8 else 4 + int.from_bytes(self._held[:4], "big") - held

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(OSError):
            self._socket.close()
