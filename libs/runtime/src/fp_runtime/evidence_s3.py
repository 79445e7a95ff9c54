"""The evidence store on S3: conditional puts, so that the first writer wins and a lost reply is no conflict."""

import base64
import hashlib
from typing import TYPE_CHECKING

import boto3
import stamina
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fp_contracts.control import EvidenceRef
from fp_runtime.errors import Unavailable
from fp_runtime.evidence_key import EvidenceConflict, EvidenceMissing, Stored, check_key, ref_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 4
_MISSING = ("404", "NoSuchKey", "NotFound")
_HOPELESS = (400, 401, 403, 404, 405, 411, 413, 501)  # a put that failed so fails again


class _Undecided(Exception):
    """The put has no clear result and the object is not there: put again."""


def s3_client(endpoint: str | None = None) -> "S3Client":
    """A client with short timeouts; `endpoint` = an S3-compatible server with path-style buckets."""
    config = Config(
        connect_timeout=3, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2},
        tcp_keepalive=True, s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
    )  # fmt: skip
    region = "us-east-1" if endpoint else None
    return boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)


class S3Store:
    """Evidence under a prefix of a bucket. Needs PutObject, GetObject and ListBucket, never DeleteObject."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""

    def put(self, key: str, body: bytes) -> EvidenceRef:
        """See EvidenceStore. 412, 409 and a lost reply are settled by reading back and comparing."""
        ref = ref_of(key, body)
        try:
            for attempt in stamina.retry_context(on=_Undecided, attempts=_ATTEMPTS, wait_initial=0.05, wait_max=1.0):
                with attempt:
                    self._put_once(key, body)
        except _Undecided as error:
            raise Unavailable(f"{self._where(key)}: {error}") from error
        return ref

    def _put_once(self, key: str, body: bytes) -> None:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=self._root + key, Body=body, IfNoneMatch="*", ChecksumSHA256=digest
            )
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and _status(error) in _HOPELESS:
                raise Unavailable(f"{self._where(key)}: {error}") from error
            try:
                there = self.get(key)
            except EvidenceMissing:
                raise _Undecided(str(error)) from error
            if there != body:
                raise EvidenceConflict(f"{key}: other bytes are already there") from error

    def get(self, key: str) -> bytes:
        """See EvidenceStore."""
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._root + check_key(key))["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                raise EvidenceMissing(key) from error
            raise Unavailable(f"{self._where(key)}: {error}") from error
        except BotoCoreError as error:
            raise Unavailable(f"{self._where(key)}: {error}") from error

    def list(self, prefix: str) -> list[Stored]:
        """See EvidenceStore."""
        pages = self._client.get_paginator("list_objects_v2")
        try:
            return [
                Stored(item["Key"].removeprefix(self._root), item["Size"])
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._root + prefix)
                for item in page.get("Contents", [])
            ]
        except (ClientError, BotoCoreError) as error:
            raise Unavailable(f"{self._where(prefix)}: {error}") from error

    def exists(self, key: str) -> bool:
        """See EvidenceStore."""
        try:
            self._client.head_object(Bucket=self._bucket, Key=self._root + check_key(key))
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return False
            raise Unavailable(f"{self._where(key)}: {error}") from error
        except BotoCoreError as error:
            raise Unavailable(f"{self._where(key)}: {error}") from error
        return True

    def _where(self, key: str) -> str:
        return f"evidence store s3://{self._bucket}/{self._root}{key}"


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
