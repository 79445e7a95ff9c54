"""A world in an S3 store: every object write-once, the manifest last, the same world again is no conflict."""

from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from fp_operator.worlds.samples import tiny_world
from fp_wsp.world_check import verify
from fp_wsp.world_store import list_worlds, open_world


def test_a_world_is_sealed_in_s3_and_checked_from_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with mock_aws():
        boto3.client("s3").create_bucket(
            Bucket="worlds", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )  # fmt: skip
        manifest = tiny_world("s3://worlds/oracle")
        assert tiny_world("s3://worlds/oracle") == manifest
        assert verify(open_world("s3://worlds/oracle", manifest.fingerprint)) == []
        assert [world.fingerprint for world in list_worlds("s3://worlds/oracle")] == [manifest.fingerprint]
