"""S3Store against moto (semantics) and a client that loses replies or answers 409 (which no local server does)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import stamina
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from fp_runtime.errors import Unavailable
from fp_runtime.evidence import EvidenceConflict, EvidenceMissing, Stored, read
from fp_runtime.evidence_s3 import S3Store, s3_client

BUCKET = "evidence-bucket"


class Faulty:
    """Passes calls on; each planned fault is raised by a put, after the put when `late`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.faults: list[tuple[Exception, bool]] = []
        self.puts = 0

    def put_object(self, **request: Any) -> Any:
        self.puts += 1
        if not self.faults:
            return self._client.put_object(**request)
        fault, late = self.faults.pop(0)
        if late:
            self._client.put_object(**request)
        raise fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def refusal(status: int, code: str) -> ClientError:
    reply: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(reply, "PutObject")


LOST = ReadTimeoutError(endpoint_url="https://s3")
CONFLICT = refusal(409, "ConditionalRequestConflict")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made = s3_client()
        made.create_bucket(Bucket=BUCKET)
        yield made


@pytest.fixture
def client(server: Any) -> Any:
    return Faulty(server)


@pytest.fixture
def store(client: Any, request: pytest.FixtureRequest) -> Iterator[S3Store]:
    with stamina.set_testing(True, attempts=4):
        yield S3Store(client, BUCKET, re.sub(r"\W", "_", request.node.name))


def test_equal_bytes_again_are_the_same_object_and_others_a_conflict(store: S3Store) -> None:
    ref = store.put("runs/r/a.json", b"one")
    assert store.put("runs/r/a.json", b"one") == ref
    with pytest.raises(EvidenceConflict):
        store.put("runs/r/a.json", b"two")
    assert read(store, ref) == b"one"


def test_objects_are_listed_below_the_root(store: S3Store, client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="elsewhere/a", Body=b"")
    store.put("a/b", b"12")
    store.put("c", b"1")
    assert store.list("") == [Stored("a/b", 2), Stored("c", 1)]
    assert store.list("a/") == [Stored("a/b", 2)]
    assert (store.exists("c"), store.exists("d")) == (True, False)
    with pytest.raises(EvidenceMissing):
        store.get("d")


@pytest.mark.parametrize("fault", [LOST, refusal(500, "InternalError"), CONFLICT, refusal(412, "PreconditionFailed")])
def test_a_put_that_was_done_although_it_failed_is_done(store: S3Store, client: Any, fault: Exception) -> None:
    client.faults = [(fault, True)]
    ref = store.put("a", b"one")
    assert (client.puts, read(store, ref)) == (1, b"one")


@pytest.mark.parametrize("fault", [LOST, refusal(503, "SlowDown"), CONFLICT])
def test_a_put_that_was_not_done_is_tried_again(store: S3Store, client: Any, fault: Exception) -> None:
    client.faults = [(fault, False)]
    ref = store.put("a", b"one")
    assert (client.puts, read(store, ref)) == (2, b"one")


def test_a_lost_reply_to_another_writer_is_a_conflict(store: S3Store, client: Any) -> None:
    store.put("a", b"theirs")
    client.faults = [(LOST, False)]
    with pytest.raises(EvidenceConflict):
        store.put("a", b"ours")


def test_a_store_that_stays_down_is_unavailable(store: S3Store, client: Any) -> None:
    client.faults = [(LOST, False)] * 9
    with pytest.raises(Unavailable, match=r"s3://evidence-bucket/.*/a: "):
        store.put("a", b"one")
    assert client.puts == 4


def test_a_refused_put_is_not_repeated(store: S3Store, client: Any) -> None:
    client.faults = [(refusal(403, "AccessDenied"), False)]
    with pytest.raises(Unavailable, match="AccessDenied"):
        store.put("a", b"one")
    assert client.puts == 1


def test_a_missing_bucket_is_not_a_missing_object(client: Any) -> None:
    with pytest.raises(Unavailable):
        S3Store(client, "no-such-bucket").get("a")
