"""Keys that sign service tokens for tests, and tokens that they have signed."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

JWT_SECRET = "a secret that only tests have, of more than 32 bytes"
_PRIVATE = ed25519.Ed25519PrivateKey.generate()


def write_jwks(path: Path) -> Path:
    """The file that names the public key of these tests."""
    key = OKPAlgorithm.to_jwk(_PRIVATE.public_key(), as_dict=True)
    path.write_text(json.dumps({"keys": [{**key, "kid": "test", "alg": "EdDSA", "use": "sig"}]}))
    return path


def service_token(*, algorithm: str = "EdDSA", expires_in_s: float = 600, **claims: Any) -> str:
    """A token for the guarded server, by its JWKS file or by its secret."""
    good = {"sub": "tests", "aud": "runstore", "exp": int(time.time() + expires_in_s), "role": "editor"}
    if algorithm == "HS256":
        return jwt.encode({**good, **claims}, JWT_SECRET, algorithm)
    return jwt.encode({**good, **claims}, _PRIVATE, algorithm, {"kid": "test"})
