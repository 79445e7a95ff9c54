"""Substrate pins (spec §1.3), profiles that realise them, and the spec's budget (spec §1.4)."""

from collections.abc import Mapping
from types import MappingProxyType

PINS: Mapping[str, str] = MappingProxyType(
    {
        "runtime_orchestration": "EKS",
        "event_bus": "AWS MSK Serverless (SASL_IAM, eu-west-2)",
        "object_store": "S3",
        "relational_state": "Aurora PostgreSQL Serverless v2 Multi-AZ",
        "low_latency_state": "ElastiCache Redis",
        "ofs_compute": "Databricks job clusters",
        "mf_train_serve": "SageMaker",
        "experiment_registry": "Databricks managed MLflow",
        "orchestration_split": "Step Functions + MWAA Airflow",
        "delivery": "Terraform + GitHub Actions",
        "telemetry": "OpenTelemetry + CloudWatch",
    }
)
PROFILES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "dev_full": PINS,
        "local": MappingProxyType(
            {
                "runtime_orchestration": "supervisord on one machine",
                "event_bus": "Apache Kafka (KRaft, one broker, plaintext on loopback)",
                "object_store": "folder with write-once files",
                "relational_state": "PostgreSQL (one server)",
                "low_latency_state": "Valkey",
                "ofs_compute": "limited processes on one machine (pyarrow)",
                "mf_train_serve": "limited processes on one machine (SageMaker script mode)",
                "experiment_registry": "MLflow where an address is given, else none",
                "orchestration_split": "the fp command",
                "delivery": "uv lock and wheels",
                "telemetry": "OpenTelemetry to a local sink",
            }
        ),
        "kind": MappingProxyType({**PINS, "runtime_orchestration": "Kubernetes (local cluster)"}),
    }
)
MONTHLY_LIMIT_MICROUSD = 300_000_000
ALERTS_MICROUSD = (120_000_000, 210_000_000, 270_000_000)


def alert_level(spend_microusd: int) -> int:
    """0..3: how many of the three alerts the month-to-date spend has crossed (micro-USD)."""
    return sum(spend_microusd >= alert for alert in ALERTS_MICROUSD)


def substitutions(profile: str) -> dict[str, dict[str, str]]:
    """Pins that a profile realises otherwise: pin -> {pinned, here}. Empty for dev_full."""
    realised = PROFILES[profile]
    return {pin: {"pinned": PINS[pin], "here": realised[pin]} for pin in PINS if realised[pin] != PINS[pin]}
