"""Names in the experiment registry (`champion`, `challenger`, `previous`) that follow what is active, never lead."""

import importlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

from fp_contracts.bundle import BundleRef
from fp_runtime.errors import UserError

TAG = "fp.bundle_id"
# Read by mlflow when it is imported: it would call home, retry for minutes, and refuse a folder as its store.
_CLIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}


class AliasesDown(Exception):
    """The experiment registry does not answer."""


class Aliases(Protocol):
    """Where aliases are kept."""

    def check(self) -> None:
        """Nothing; AliasesDown when it cannot be asked."""
        ...

    def follow(
        self, name: str, champion: BundleRef, previous: BundleRef | None, challenger: BundleRef | None
    ) -> Mapping[str, str]:
        """Point the aliases of a registered model at these bundles; alias to bundle id as read back. AliasesDown.

        Without a challenger its alias goes, since it would name one that nobody scores.
        """
        ...


class NoAliases:
    """No tracker is configured: nothing to follow, and the evidence says so."""

    def check(self) -> None:
        """See Aliases."""

    def follow(
        self, name: str, champion: BundleRef, previous: BundleRef | None, challenger: BundleRef | None
    ) -> Mapping[str, str]:
        """See Aliases."""
        return {}


class MlflowAliases:
    """Aliases in MLflow's model registry; `client` is an `mlflow.MlflowClient`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._error: type[Exception] = importlib.import_module("mlflow.exceptions").MlflowException

    def check(self) -> None:
        """See Aliases."""
        try:
            self._client.search_registered_models(max_results=1)
        except (self._error, OSError) as error:
            raise AliasesDown(f"MLflow: {str(error)[:200]}") from error

    def follow(
        self, name: str, champion: BundleRef, previous: BundleRef | None, challenger: BundleRef | None
    ) -> Mapping[str, str]:
        """See Aliases."""
        named = {"champion": champion, "previous": previous, "challenger": challenger}
        wanted = {alias: bundle for alias, bundle in named.items() if bundle is not None}
        try:
            self._ensure_model(name)
            if challenger is None and "challenger" in self._client.get_registered_model(name).aliases:
                self._client.delete_registered_model_alias(name, "challenger")
            for alias, bundle in wanted.items():
                self._client.set_registered_model_alias(name, alias, self._version(name, bundle))
            found = {alias: self._client.get_model_version_by_alias(name, alias) for alias in wanted}
        except (self._error, OSError) as error:
            raise AliasesDown(f"MLflow: {str(error)[:200]}") from error
        return {alias: str(version.tags.get(TAG)) for alias, version in found.items()}

    def _ensure_model(self, name: str) -> None:
        if not self._client.search_registered_models(filter_string=f"name = '{name}'"):
            self._client.create_registered_model(name)

    def _version(self, name: str, bundle: BundleRef) -> str:
        for version in self._client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(TAG) == bundle.bundle_id:
                return str(version.version)
        made = self._client.create_model_version(name, bundle.manifest.key, tags={TAG: bundle.bundle_id})
        return str(made.version)


def open_aliases(tracking_url: str) -> Aliases:
    """Aliases at a tracking address; empty = none. The client is imported here only: it is slow and optional."""
    if not tracking_url:
        return NoAliases()
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    try:
        mlflow = importlib.import_module("mlflow")
    except ImportError as error:
        raise UserError("tracking", "the MLflow client is missing", "install fp-ofs-trigger[mlflow]") from error
    return MlflowAliases(mlflow.MlflowClient(tracking_uri=tracking_url, registry_uri=tracking_url))
