"""The environment's signing key: its public half is evidence of P0, so that what is signed later is known by it.

Ed25519. The private half never leaves the 0600 file of the state folder.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from fp_operator.stack.state import StateFolder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def _private(state_dir: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # here: other verbs do not sign

    secret = StateFolder(state_dir).secret("signing_key")
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"fp signing {secret}".encode()).digest())


def public_key(state_dir: Path) -> str:
    """The public key, hex."""
    return _private(state_dir).public_key().public_bytes_raw().hex()


def sign(state_dir: Path, body: bytes) -> str:
    """The signature of these bytes, hex."""
    return _private(state_dir).sign(body).hex()


def holds(key: str, body: bytes, signature: str) -> bool:
    """Whether the signature is the key's over these bytes; False also for what is neither key nor signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), body)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
