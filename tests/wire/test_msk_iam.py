"""MSK IAM end to end: our clients sign with the real signer, and a real broker over TLS verifies each token."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # type: ignore[import-untyped]  # it ships no types
from botocore.credentials import Credentials
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from fp_contracts.topics import CONTROL, pinned
from fp_operator.stack import tether
from fp_operator.stack.kafka import Distribution, distribution, probe_kafka, server_properties
from fp_operator.stack.server import NotReady
from fp_runtime.bus import FetchProfile, Out
from fp_runtime.deadline import until
from fp_runtime.kafka import KafkaConsumer
from fp_runtime.kafka_admin import KafkaAdmin
from fp_runtime.kafka_client import FatalWatch, admin_options, consumer_options, producer_options
from fp_runtime.kafka_producer import KafkaProducer
from fp_runtime.msk import MskTokens, tokens_of
from fp_runtime.settings import RuntimeSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
REGION, KEY, SECRET, PASSWORD = "eu-west-1", "AKIDTEST", "s3cret", "changeit"
SOURCE = Path(__file__).parent / "msk_iam" / "MskIamHandler.java"


@dataclass(frozen=True)
class Msk:
    """A broker that lets in MSK IAM tokens only, on a TLS listener with its own certificate."""

    bootstrap: str
    certificate: Path


@pytest.fixture(scope="module")
def msk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Msk]:
    tools = [tool for tool in ("javac", "keytool") if shutil.which(tool) is None]
    if tools:
        pytest.skip(f"no {' and '.join(tools)} on the path: the token verifier cannot be built")
    folder, dist = tmp_path_factory.mktemp("msk"), distribution()
    classes = folder / "classes"
    _run("javac", "--release", "17", "-cp", dist.class_path, "-d", str(classes), str(SOURCE))
    certificate = _certificate(folder)
    plain, secure, controller = _free_ports(3)
    shutil.copytree(dist.template, folder / "data")
    properties = folder / "server.properties"
    properties.write_text(
        server_properties(folder / "data", plain, controller) + _listener(folder, plain, secure, controller)
    )
    with ExitStack() as running:
        log = running.enter_context((folder / "log").open("wb"))
        broker = subprocess.Popen(_command(dist, classes, properties), stdout=log, stderr=log)
        running.callback(broker.wait)
        running.callback(broker.terminate)
        until(lambda: _ready(f"127.0.0.1:{plain}"), 90, "the broker")
        yield Msk(f"127.0.0.1:{secure}", certificate)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _command(dist: Distribution, classes: Path, properties: Path) -> list[str]:
    argv = [
        part.replace(dist.class_path, f"{classes}:{dist.class_path}")
        for part in dist.command("kafka.Kafka", str(properties))
    ]
    argv = [part for part in argv if not part.startswith("-XX:AOTCache=")]  # it is for another class path
    return [sys.executable, "-I", "-S", str(tether.__file__), "--death-signal", "KILL", "--", *argv]


def _certificate(folder: Path) -> Path:
    store, pem = str(folder / "store.p12"), folder / "certificate.pem"
    chosen = ["-keystore", store, "-storepass", PASSWORD, "-alias", "broker"]
    made = ["-keyalg", "EC", "-dname", "CN=broker", "-ext", "SAN=IP:127.0.0.1", "-storetype", "PKCS12"]
    _run("keytool", "-genkeypair", *chosen, *made)
    _run("keytool", "-exportcert", "-rfc", "-file", str(pem), *chosen)
    return pem


def _listener(folder: Path, plain: int, secure: int, controller: int) -> str:
    login = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
    listeners = {"PLAINTEXT": plain, "SASL_SSL": secure, "CONTROLLER": controller}
    settings = {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.sasl_ssl.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.sasl_ssl.ssl.keystore.location": f"{folder}/store.p12",
        "listener.name.sasl_ssl.ssl.keystore.type": "PKCS12",
        "listener.name.sasl_ssl.ssl.keystore.password": PASSWORD,
        "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class": "MskIamHandler",
        "listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms": "3600000",
        "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": (
            f'{login} unsecuredLoginStringClaim_sub="broker" region="{REGION}" key_{KEY}="{SECRET}";'
        ),
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())  # of two equal keys the later holds


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _ready(bootstrap: str) -> bool:
    try:
        probe_kafka(bootstrap)
    except NotReady:
        return False
    return True


@pytest.fixture
def settings(msk: Msk, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeSettings]:
    """Settings of a process in dev_full, with credentials where the AWS chain looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    tokens_of.cache_clear()
    yield RuntimeSettings(
        profile="dev_full",
        instance="ig-0",
        kafka_bootstrap=msk.bootstrap,
        pg_dsn="unused",
        evidence_url="file:///unused",
        msk_region=REGION,
    )
    tokens_of.cache_clear()


def test_admin_producer_and_consumer_get_in_with_signed_tokens(msk: Msk, settings: RuntimeSettings) -> None:
    trust = {"ssl.ca.location": str(msk.certificate)}
    admin = KafkaAdmin(admin_options(settings) | trust, "", pinned(settings.profile), calls_per_s=20)
    admin.create_topics([CONTROL])
    producer = KafkaProducer(Producer(producer_options(settings, 1, 20) | trust), "", FatalWatch(), 20)
    assert producer.publish([Out(CONTROL, 0, b"k", b"v", b"h")])[0].error is None
    options = consumer_options(settings, "g", FetchProfile.CONTROL) | trust
    consumer = KafkaConsumer(Consumer(options), "", FatalWatch())
    consumer.assign({(CONTROL, 0): 0})
    assert until(lambda: consumer.poll(10, 0.2) or None, 20, "the record")[0].value == b"v"
    consumer.close()
    producer.close()


def test_tokens_are_renewed_on_an_open_connection(
    msk: Msk, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client renews at 80 % of a token's life, and the broker refuses to authenticate a connection again within a
    # second (KIP-368): a fifth of the life must be well over that.
    monkeypatch.setattr(MSKAuthTokenProvider, "DEFAULT_TOKEN_EXPIRY_SECONDS", 16)
    signed: list[int] = []

    def credentials() -> Credentials:
        signed.append(1)
        return Credentials(KEY, SECRET)

    errors: list[KafkaError] = []
    trust: dict[str, Any] = {
        "ssl.ca.location": str(msk.certificate),
        "oauth_cb": MskTokens(REGION, credentials),
        "error_cb": errors.append,
    }
    KafkaAdmin(admin_options(settings) | trust, "", pinned(settings.profile), calls_per_s=20).create_topics([CONTROL])
    producer = KafkaProducer(Producer(producer_options(settings, 1, 20) | trust), "", FatalWatch(), 20)

    def renewed() -> bool:
        assert producer.publish([Out(CONTROL, 0, b"k", b"v", b"h")])[0].error is None
        return len(signed) >= 3

    until(renewed, 60, "two renewals", interval_s=0.25)
    assert [error for error in errors if error.code() == KafkaError._AUTHENTICATION] == []
    producer.close()


@pytest.mark.parametrize(
    ("region", "secret"), [(REGION, "wrong"), ("us-east-1", SECRET)], ids=["wrong secret", "wrong region"]
)
def test_a_token_that_does_not_verify_is_refused(msk: Msk, settings: RuntimeSettings, region: str, secret: str) -> None:
    errors: list[KafkaError] = []
    options = admin_options(settings) | {
        "ssl.ca.location": str(msk.certificate),
        "oauth_cb": MskTokens(region, lambda: Credentials(KEY, secret)),
        "error_cb": errors.append,
    }
    client = AdminClient(options)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=3)
    until(lambda: client.poll(0.1) or bool(errors), 10, "the reason")
    assert KafkaError._AUTHENTICATION in {error.code() for error in errors}
