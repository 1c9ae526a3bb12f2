"""Service tokens: JSON Web Tokens (RFC 7519) that another system signs for its services and sessions.

The key decides which algorithm a signature has, never the token: HS256 with the shared secret, or with a key
of the JWKS file the algorithm of that key. So a token cannot ask to be unsigned, nor to have a public key
taken for a secret (RFC 8725, section 3.1).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import jwt
import structlog

from runstore.domain.principals import Grant, Role

_SYMMETRIC: Final = "HS256"
_ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
# A token is a header or a cookie; parsing megabytes of one is work for nothing.
_MAX_TOKEN_CHARS: Final = 8_192
_REQUIRED: Final = ("exp", "sub", "aud", "role")

_log = structlog.get_logger(__name__)


class BadKeySet(ValueError):
    """The JWKS file cannot be used; the text says why, without the file's content."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must be like."""

    audience: str
    issuer: str = ""
    """"" for any issuer: whoever has the key is trusted."""
    leeway_s: float = 0.0
    """By how much clocks may differ."""


class ServiceTokens:
    """Recognises tokens. One is never accepted with a key of the other kind."""

    def __init__(self, rules: TokenRules, *, secret: str = "", jwks_file: Path | None = None) -> None:
        """Raises BadKeySet when `jwks_file` cannot be read or holds no key."""
        self._rules = rules
        self._secret = secret.encode()
        self._keys = None if jwks_file is None else _KeyFile(jwks_file)

    def grant(self, token: str) -> Grant | None:
        """What the token opens; None for one that is not signed, not valid now, or not for this server.

        Claims: `sub` (who), `aud`, `exp`, `role`, either `tenant_id` or `organization_id`; `iss` where one is
        asked for; `nbf` and `iat` count when they are there.
        """
        if len(token) > _MAX_TOKEN_CHARS:
            return None
        try:
            claims = self._claims(token)
            return _grant(claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # What is wrong helps only whoever forges tokens; the issuer's own logs know what it has signed.
            return None

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm == _SYMMETRIC and self._secret:
            return self._decoded(token, self._secret, algorithm)
        if self._keys is not None and algorithm in _ASYMMETRIC:
            key = self._keys.find(header.get("kid"), algorithm)
            if key is not None:
                return self._decoded(token, key.key, algorithm)
        raise jwt.InvalidKeyError

    def _decoded(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._rules.audience,
            issuer=self._rules.issuer or None,
            leeway=self._rules.leeway_s,
            options={"require": [*_REQUIRED, *(("iss",) if self._rules.issuer else ())]},
        )


def _grant(claims: dict[str, Any]) -> Grant:
    """Raises ValueError, TypeError for claims that say nothing clear."""
    tenant_id, organization_id = claims.get("tenant_id"), claims.get("organization_id")
    if (tenant_id is None) == (organization_id is None) or not claims["sub"]:
        raise ValueError
    return Grant(
        # Reviews, likes and limits are the subject's, whichever of its tokens it shows.
        key_id=str(uuid5(NAMESPACE_URL, f"{claims.get('iss', '')} {claims['sub']}")),
        role=Role(claims["role"]),
        tenant_id=None if tenant_id is None else _uuid_text(tenant_id),
        organization_id=None if organization_id is None else _uuid_text(organization_id),
    )


def _uuid_text(claim: object) -> str:
    if not isinstance(claim, str):
        raise TypeError
    return str(UUID(claim))


class _KeyFile:
    """The public keys of a JWKS file (RFC 7517), read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._state()
        self._keys = _read(path)

    def find(self, key_id: object, algorithm: str) -> jwt.PyJWK | None:
        """The key that a token names; without a name, the only key of that algorithm."""
        self._refresh()
        fitting = [key for key in self._keys if key.algorithm_name == algorithm]
        if key_id is not None:
            fitting = [key for key in fitting if key.key_id == key_id]
        return fitting[0] if len(fitting) == 1 else None

    def _refresh(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._keys = _read(self._path)
        except BadKeySet as error:
            # The keys that were good go on, so that a slip while rotating locks nobody out.
            _log.error("jwks_unreadable", path=str(self._path), problem=str(error))
            return
        _log.info("jwks_read", path=str(self._path), keys=len(self._keys))

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - half as long as Path.stat, on every call
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> list[jwt.PyJWK]:
    try:
        content = json.loads(path.read_bytes())
        entries = content["keys"]
        if not isinstance(entries, list):
            raise BadKeySet("`keys` is no list")
    except OSError as error:
        raise BadKeySet(error.strerror or "cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadKeySet("not a JSON object with `keys`") from error
    keys = [_key(entry, number) for number, entry in enumerate(entries) if _is_for_signatures(entry)]
    if not keys:
        raise BadKeySet("no key for signatures")
    return keys


def _is_for_signatures(entry: object) -> bool:
    return not isinstance(entry, dict) or entry.get("use", "sig") == "sig"


def _key(entry: object, number: int) -> jwt.PyJWK:
    if not isinstance(entry, dict) or entry.get("kty") == "oct":
        raise BadKeySet(f"keys[{number}] is no public key; a shared secret is a setting of its own")
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise BadKeySet(f"keys[{number}] cannot be used: {type(error).__name__}") from error
    if key.algorithm_name not in _ASYMMETRIC:
        raise BadKeySet(f"keys[{number}] is for {key.algorithm_name}, which is no signature by a public key")
    return key
