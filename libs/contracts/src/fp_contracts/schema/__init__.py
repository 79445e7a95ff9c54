"""JSON Schema of every record, so that a change of a contract shows as a diff (`python -m fp_contracts.schema`)."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fp_contracts.envelope import Envelope
from fp_contracts.ingress import INGRESS_TYPES
from fp_contracts.learning import LEARNING_MODELS
from fp_contracts.records import CONTROL_MODELS, DERIVED_TYPES
from fp_contracts.registry import REGISTRY_MODELS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def payload_models() -> dict[str, type[BaseModel]]:
    """event_type -> payload model, of ingress, derived, control, registry and learning records."""
    ingress: Mapping[str, type[BaseModel]] = {name: kind.model for name, kind in INGRESS_TYPES.items()}
    typed: tuple[type[BaseModel], ...] = (*CONTROL_MODELS, *REGISTRY_MODELS, *LEARNING_MODELS)
    return {**ingress, **DERIVED_TYPES, **{model.model_fields["type"].default: model for model in typed}}


def schemas() -> dict[str, dict[str, Any]]:
    """File name without suffix -> JSON Schema; the envelope (its payload is any object) and one per event type."""
    found: dict[str, type[BaseModel]] = {"envelope": Envelope, **payload_models()}
    return {name: {"$schema": DIALECT, **model.model_json_schema()} for name, model in sorted(found.items())}


def property_names(schema: Any) -> set[str]:
    """Every property name anywhere in a schema, definitions included."""
    names: set[str] = set()
    if isinstance(schema, dict):
        properties = schema.get("properties")
        names |= set(properties) if isinstance(properties, dict) else set()
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            names |= property_names(item)
    return names
