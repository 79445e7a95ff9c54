"""The slice through the whole platform, from the published files to vectors, labels and figures."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from bench.handbook import dataset, harvest, mesh, parity, streamed
from bench.handbook.bars import Bar
from bench.handbook.dataset import Built
from bench.handbook.harvest import Found
from bench.handbook.parity import Parity
from bench.handbook.source import golden_of, payments_of
from bench.handbook.span import Span
from bench.handbook.streamed import Streamed
from bench.handbook.telling import tell
from fp_operator.launch import find_world
from fp_runtime.evidence import open_store
from fp_runtime.postgres import connect


class Platform(NamedTuple):
    """What the run came to, in figures: seconds, bytes, counts."""

    run: str
    payments: int
    lines: int
    import_s: float
    stream_s: float
    verdict_s: float
    peak_bytes: int
    programs: dict[str, int]
    equations: int
    verdict: str
    found: Found
    parity: Parity
    dataset: tuple[Built, ...]

    def bars(self) -> tuple[Bar, ...]:
        """The published features came out, nothing degraded, the dataset job recomputed every vector bit for bit."""
        built = [one.status for one in self.dataset]
        return (
            Bar("parity", f"{self.parity.differing} differ, {self.parity.tied} tied", self.parity.ok),
            Bar("none degraded", f"{self.found.degraded}", not self.found.degraded),
            Bar("dataset", ", ".join(built), built == ["INPUT_READY", "PUBLISHED"]),
        )


def streamed_by_platform(data: Path, span: Span, folder: Path) -> tuple[Platform, Streamed]:
    """Import, run, read back, compare, build the dataset; what `folder` already holds of a whole pass is taken."""
    vectors, figures = folder / "platform.parquet", folder / "platform.json"
    if not figures.exists():
        figures.write_text(json.dumps(_document(_pass(data, span, folder, vectors))))
    return _of(json.loads(figures.read_text())), streamed.load(vectors)


def _pass(data: Path, span: Span, folder: Path, vectors: Path) -> Platform:
    began = time.monotonic()
    world = mesh.import_world(data, span, folder)
    import_s = time.monotonic() - began
    with mesh.brought_up(folder) as environment, closing(connect(environment.settings().pg_dsn, "fp-bench")) as conn:
        ran = mesh.run(environment, world)
        tell(f"verdict after {ran.whole_s:.0f} s: all {ran.equations} equations hold; reading back")
        source = payments_of(data, span)
        manifest = find_world(environment.addresses.oracle_url, world)
        archive = open_store(environment.addresses.archive_url)
        found = harvest.read(ran.state, manifest, source, conn, archive, vectors)
        back = streamed.load(vectors)
        golden = golden_of(data, source.payments)
        compared = parity.compare(back.vectors, back.accounts, back.times_us, golden, span.first_us)
        tell(f"{compared.rows:,} payments read back, {compared.differing} differ, {compared.tied} of them tied")
        built = dataset.build(ran.state, conn, environment.addresses.archive_url, folder)
    return Platform(
        ran.state.platform_run_id, len(source.payments), ran.lines, import_s, ran.stream_s, ran.whole_s, ran.peak_bytes,
        dict(ran.programs), ran.equations, ran.verdict, found, compared, tuple(built),
    )  # fmt: skip


def _document(platform: Platform) -> dict[str, Any]:
    document = platform._asdict()
    document |= {name: getattr(platform, name)._asdict() for name in ("found", "parity")}
    return document | {"dataset": [one._asdict() for one in platform.dataset]}


def _of(document: dict[str, Any]) -> Platform:
    nested = {"found": Found(**document["found"]), "parity": Parity(**document["parity"])}
    return Platform(**document | nested | {"dataset": tuple(Built(**one) for one in document["dataset"])})
