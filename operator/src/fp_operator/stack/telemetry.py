"""A small telemetry sink: OTLP over HTTP in, one JSON document a line out (`telemetry/otlp.ndjson`)."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from fp_operator.stack.program import Program
from fp_operator.stack.server import NotReady


@dataclass(frozen=True, slots=True)
class TelemetrySink:
    """The `oteltap` receiver; its standard output is the file."""

    folder: Path
    port: int
    name: str = "telemetry"

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> Path:
        return self.folder / "otlp.ndjson"

    def prepare(self) -> Program:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = (sys.executable, "-u", "-m", "oteltap", "--port", str(self.port))
        return Program(self.name, argv, cwd=self.folder, priority=90, stop_signal="INT", stdout=self.lines)

    def probe(self) -> None:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError as error:
            raise NotReady(str(error)) from error
