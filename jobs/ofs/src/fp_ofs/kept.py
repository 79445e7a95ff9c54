"""What stage `input` recomputed and found clean, kept by hash for stage `dataset`: reused whole or not at all.

One object: the payments with their vectors as an Arrow stream; the rest stands in its schema's metadata.
"""

from dataclasses import dataclass

import pyarrow as pa

from fp_contracts.canonical import CanonicalError, canonical_bytes, parse_strict
from fp_contracts.control import EvidenceRef
from fp_ofs.records import Label
from fp_runtime.evidence import EvidenceBroken, EvidenceKeyError, EvidenceMissing, EvidenceStore, read, ref_of

_META = b"fp_ofs.kept"
_REPORTS = ("readiness", "leakage")


@dataclass(frozen=True, slots=True)
class Kept:
    """`payments` as in Material; `readiness`, `leakage`: the reports that found them clean."""

    payments: pa.Table
    labels: tuple[Label, ...]
    readiness: EvidenceRef
    leakage: EvidenceRef


def name_of(body: bytes) -> str:
    """The object's name within its dataset: by content, so that another packing never stands in the way."""
    return f"material/{ref_of('kept', body).sha256}.arrow"


def pack(kept: Kept, fingerprint: str) -> bytes:
    """The object; equal material gives equal bytes with the same pyarrow."""
    about = {
        "dataset_fingerprint": fingerprint,
        "labels": [list(label) for label in kept.labels],
        **{name: getattr(kept, name).model_dump(mode="json") for name in _REPORTS},
    }
    table = kept.payments.combine_chunks().replace_schema_metadata({_META: canonical_bytes(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack(store: EvidenceStore, ref: EvidenceRef, fingerprint: str) -> Kept | None:
    """What was kept for this fingerprint, its reports read back; None when anything of it does not hold."""
    try:
        table = pa.ipc.open_stream(read(store, ref)).read_all()
        about = parse_strict((table.schema.metadata or {})[_META])
        reports = {name: EvidenceRef.model_validate(about[name]) for name in _REPORTS}
        for report in reports.values():
            read(store, report)
        labels = tuple(Label(*label) for label in about["labels"])
    except (EvidenceMissing, EvidenceBroken, EvidenceKeyError, CanonicalError, pa.ArrowException, KeyError, ValueError,
            TypeError):  # fmt: skip
        return None
    if about["dataset_fingerprint"] != fingerprint:
        return None
    return Kept(table.replace_schema_metadata(None), labels, **reports)
