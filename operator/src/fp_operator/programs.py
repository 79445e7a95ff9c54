"""The services of the mesh as supervised programs, each with its own role, instance name and ports."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fp_contracts.services import instances
from fp_operator.stack import Program, StackAddresses
from fp_runtime.builds import package_of

MODES = {"archive": ("archive",), "actions": ("actions",), "actuator": ("actuator",)}
MEMBERS: Mapping[str, int] = {"rtdl": 2, "df": 1, "cm_ls": 1}
WRITERS = ("ig-0",)
EMITTERS = ("df", "ofs_trigger")
"""Who sends telemetry to the embedded sink: what proof cells read back, and no more, since every export costs."""
KEY_HOLDERS = ("wsp", "ig", "cm_ls")
"""Who signs or checks credentials; nobody else is given the keys."""
HEALTH = "health:"
PORTS = ("ig", "cm_ls", "verdict", "actuator", *(f"{HEALTH}{name}" for name in instances(MEMBERS, WRITERS)))
_PRIORITY = 500
BUILD = "FP_IMAGE_MANIFEST"
"""Digest of the build in every environment: another build is another program, and so restarted."""
_CACHED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Byte code is kept even where the operator's shell turns it off: compiling at each start took 2 of 3.5 CPU seconds."""


def role_of(service: str) -> str:
    """The database role of a service: second processes share their package's."""
    return f"fp_{package_of(service).removeprefix('fp_')}"


def make_programs(
    addresses: StackAddresses,
    state_dir: Path,
    ports: Mapping[str, int],
    password: Callable[[str], str],
    shared: Mapping[str, str],
    producer_keys: str,
    tracking_url: str = "",
) -> list[Program]:
    """Every service instance of an environment, the actuator and the meter. `shared`: the digests that all hold."""
    own = {**_own_ports(ports), "ofs_trigger": _read_back(addresses, tracking_url)}
    programs = [actuator(state_dir, ports["actuator"], shared[BUILD])]
    for name in instances(MEMBERS, WRITERS):
        service = name.rpartition("-")[0]
        role = role_of(service)
        env = {
            **_addresses(addresses),
            **_telemetry(addresses, service),
            **shared,
            **_urls(ports),
            **own.get(service, {}),
            **({"FP_PRODUCER_KEYS": producer_keys} if service in KEY_HOLDERS else {}),
            "FP_INSTANCE": name,
            "FP_HEALTH_PORT": str(ports[f"{HEALTH}{name}"]),
            "FP_PG_DSN": addresses.pg_dsn_as(role, password(role)),
        }
        programs.append(_program(name, service, env, state_dir))
    meter_env = {
        **_addresses(addresses),
        BUILD: shared[BUILD],
        "FP_INSTANCE": "meter-0",
        "FP_PG_DSN": addresses.pg_dsn_as("fp_operator", password("fp_operator")),
        "FP_STATE_DIR": str(state_dir),
    }
    argv = (sys.executable, "-m", "fp_operator.metering")
    return [*programs, Program("meter-0", argv, meter_env | _CACHED, priority=_PRIORITY - 1)]


def _urls(ports: Mapping[str, int]) -> dict[str, str]:
    """Where services find each other."""
    found = {"FP_IG_URL": "ig", "FP_CM_URL": "cm_ls", "FP_ACTUATOR_URL": "actuator"}
    return {variable: f"http://127.0.0.1:{ports[service]}" for variable, service in found.items()}


def _own_ports(ports: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The port that a service listens on, under its own setting."""
    found = {"ig": "FP_IG_PORT", "cm_ls": "FP_CM_PORT", "verdict": "FP_PAGE_PORT"}
    return {service: {variable: str(ports[service])} for service, variable in found.items()}


def _addresses(addresses: StackAddresses) -> dict[str, str]:
    found = {
        "FP_KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
        "FP_REDIS_URL": addresses.redis_url,
        "FP_EVIDENCE_URL": addresses.evidence_url,
        "FP_ARCHIVE_URL": addresses.archive_url,
        "FP_ORACLE_URL": addresses.oracle_url,
    }
    return {name: value for name, value in found.items() if value}


def _telemetry(addresses: StackAddresses, service: str) -> dict[str, str]:
    """A collector of one's own hears every service; the embedded sink hears those that are read back."""
    heard = addresses.otlp_endpoint if addresses.telemetry_url is None or service in EMITTERS else None
    return {"FP_OTLP_ENDPOINT": heard} if heard else {}


def _read_back(addresses: StackAddresses, tracking_url: str) -> dict[str, str]:
    """Where ofs_trigger reads back what its jobs and df sent, and where trainings are kept note of."""
    found = {"FP_TELEMETRY_URL": addresses.telemetry_url, "FP_TRACKING_URL": tracking_url}
    return {name: value for name, value in found.items() if value}


def _program(name: str, service: str, env: Mapping[str, str], state_dir: Path) -> Program:
    argv = (sys.executable, "-m", package_of(service), *MODES.get(service, ()))
    return Program(name, argv, {**env, **_CACHED}, cwd=state_dir, priority=_PRIORITY)


def actuator(state_dir: Path, port: int, build: str) -> Program:
    """The embedded actuator with a store of its own in the state folder."""
    env = {"FP_ACTUATOR_PORT": str(port), "FP_ACTUATOR_FILE": str(state_dir / "actuator.sqlite"), BUILD: build}
    argv = (sys.executable, "-m", "fp_df", "actuator")
    return Program("actuator", argv, env | _CACHED, cwd=state_dir, priority=_PRIORITY - 1)
