"""Service tokens: what is accepted, and the many ways in which a token is not."""

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from runstore.domain.principals import Grant, Role
from runstore.rpc.service_tokens import BadKeySet, ServiceTokens, TokenRules

TENANT = "11111111-1111-4111-8111-111111111111"
ORGANIZATION = "33333333-3333-4333-8333-333333333333"
SECRET = "a secret of thirty-two bytes, and more"
RULES = TokenRules("runstore", "https://issuer.example", leeway_s=10)

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with changes; None takes one away."""
    now = int(time.time())
    good = {
        "sub": "worker-1",
        "aud": "runstore",
        "iss": "https://issuer.example",
        "exp": now + 600,
        "iat": now,
        "role": "editor",
        "tenant_id": TENANT,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def jwk(private: Any, algorithm: str, key_id: str | None = None) -> dict[str, Any]:
    """The public half as JWKS files have it."""
    found: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private.public_key(), as_dict=True)
    found.update({"alg": algorithm, "use": "sig"})
    return found if key_id is None else {**found, "kid": key_id}


def write_keys(path: Path, *keys: object) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    entries = [jwk(private, name, f"key {name}") for name, private in PRIVATE.items()]
    return write_keys(tmp_path / "keys.json", *entries)


@pytest.fixture
def tokens(key_file: Path) -> ServiceTokens:
    """With both kinds of keys, so that one could be taken for the other."""
    return ServiceTokens(RULES, secret=SECRET, jwks_file=key_file)


def signed(algorithm: str = "HS256", key: Any = None, headers: Any = None, **changes: Any) -> str:
    private: Any = key or PRIVATE.get(algorithm, SECRET)
    if headers is None and algorithm in PRIVATE:
        headers = {"kid": f"key {algorithm}"}
    return jwt.encode(claims(**changes), private, algorithm, headers)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def handmade(header: object, payload: object, key: bytes = SECRET.encode()) -> str:
    """A token with an HMAC, whatever its header says."""
    head = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(payload).encode())}"
    return f"{head}.{encoded(hmac.new(key, head.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("role", list(Role))
def test_good_token_opens_its_tenant(tokens: ServiceTokens, algorithm: str, role: Role) -> None:
    """Of each kind and role; the tenant may be written in any case."""
    grant = tokens.grant(signed(algorithm, role=role.value, tenant_id=TENANT.upper()))
    assert grant is not None
    assert (grant.tenant_id, grant.organization_id, grant.role) == (TENANT, None, role)


def test_token_of_an_organisation(tokens: ServiceTokens) -> None:
    """Opens no tenant by itself: the call names one."""
    grant = tokens.grant(signed(tenant_id=None, organization_id=ORGANIZATION))
    assert grant is not None
    assert (grant.tenant_id, grant.organization_id) == (None, ORGANIZATION)


def test_subject_is_one_caller_whatever_token_it_shows(tokens: ServiceTokens) -> None:
    """Reviews and limits are the subject's; another subject, or issuer's, is another."""

    def key_id(**changes: Any) -> str:
        grant = tokens.grant(signed(**changes))
        assert isinstance(grant, Grant)
        return grant.key_id

    assert key_id() == key_id(exp=int(time.time()) + 60, role="reader")
    assert key_id() != key_id(sub="worker-2")


_NOW = int(time.time())
_BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": _NOW - 60},
    "no expiry": {"exp": None},
    "expiry is a text": {"exp": "tomorrow"},
    "expiry is a truth": {"exp": "true"},
    "expiry is a list": {"exp": [_NOW + 60]},
    "not yet valid": {"nbf": _NOW + 86_400},
    "not-before is a text": {"nbf": "now"},
    "issued in the future": {"iat": _NOW + 86_400},
    "issued at a text": {"iat": "now"},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "subject is a number": {"sub": 7},
    "no audience": {"aud": None},
    "other audience": {"aud": "elsewhere"},
    "other audiences": {"aud": ["elsewhere", "Runstore"]},
    "audience is a number": {"aud": 7},
    "audience is an object": {"aud": {"runstore": True}},
    "no issuer": {"iss": None},
    "other issuer": {"iss": "https://issuer.example/"},
    "issuer is a number": {"iss": 7},
    "no role": {"role": None},
    "unknown role": {"role": "owner"},
    "role in capitals": {"role": "ADMIN"},
    "role is a list": {"role": ["admin"]},
    "no tenant": {"tenant_id": None},
    "tenant and organisation": {"organization_id": ORGANIZATION},
    "empty tenant": {"tenant_id": ""},
    "tenant is a name": {"tenant_id": "research"},
    "tenant is a number": {"tenant_id": 1},
    "tenant is a list": {"tenant_id": [TENANT]},
    "organisation is a name": {"tenant_id": None, "organization_id": "acme"},
}


@pytest.mark.parametrize("name", _BAD_CLAIMS)
def test_bad_claims_are_refused(tokens: ServiceTokens, name: str) -> None:
    """However good the signature is."""
    assert tokens.grant(handmade({"alg": "HS256", "typ": "JWT"}, claims(**_BAD_CLAIMS[name]))) is None


def _unsigned(algorithm: str) -> str:
    header = encoded(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    return f"{header}.{encoded(json.dumps(claims()).encode())}."


def _pem() -> bytes:
    return RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


_HS256 = {"alg": "HS256", "typ": "JWT"}
_FORGED: dict[str, Callable[[], str]] = {
    "unsigned": lambda: _unsigned("none"),
    "unsigned, in capitals": lambda: _unsigned("None"),
    "unsigned, without an algorithm": lambda: _unsigned(""),
    "signature cut off": lambda: signed().rpartition(".")[0] + ".",
    "two parts": lambda: signed().rpartition(".")[0],
    "signed with the public key as PEM": lambda: handmade(_HS256, claims(), _pem()),
    "and named as that key": lambda: handmade({**_HS256, "kid": "key RS256"}, claims(), _pem()),
    "signed with the public key as JWK": lambda: handmade(
        _HS256, claims(), json.dumps(jwk(RSA, "RS256", "key RS256")).encode()
    ),
    "HMAC that says RS256": lambda: handmade({"alg": "RS256", "kid": "key RS256"}, claims()),
    "HMAC with nothing": lambda: handmade(_HS256, claims(), b""),
    "another secret": lambda: signed(key="another secret of thirty-two bytes!!"),
    "longer hash": lambda: signed("HS512", key=SECRET + SECRET),
    "another RSA key": lambda: signed("RS256", key=OTHER_RSA),
    "another algorithm of the RSA key": lambda: signed("RS512", key=RSA, headers={"kid": "key RS256"}),
    "padding of the RSA key": lambda: signed("PS256", key=RSA, headers={"kid": "key RS256"}),
    "unknown key": lambda: signed("RS256", headers={"kid": "key of nobody"}),
    "name of a key of another kind": lambda: signed("RS256", headers={"kid": "key ES256"}),
    "name of a key is a path": lambda: signed("RS256", headers={"kid": "../../dev/null"}),
    "key in the header": lambda: signed(
        "RS256", key=OTHER_RSA, headers={"jwk": jwk(OTHER_RSA, "RS256"), "kid": "key RS256"}
    ),
    "key at an address": lambda: signed(
        "RS256", key=OTHER_RSA, headers={"jku": "http://127.0.0.1:9/keys", "kid": "key RS256"}
    ),
    "unknown critical extension": lambda: signed(headers={"crit": ["exp2"], "exp2": 1}),
    "claims changed": lambda: _changed_claims(),  # noqa: PLW0108 - defined below
    "empty": lambda: "",
    "dots": lambda: "..",
    "no base64": lambda: "é.é.é",
    "header is a list": lambda: handmade(["HS256"], claims()),
    "claims are a list": lambda: handmade(_HS256, [claims()]),
    "deeply nested": lambda: f"{encoded(b'[' * 2_000)}.{encoded(b'{}')}.x",
    "too long": lambda: signed(note="x" * 10_000),
}


def _changed_claims() -> str:
    head, _, signature = signed(role="reader").split(".")
    return f"{head}.{encoded(json.dumps(claims(role='admin')).encode())}.{signature}"


@pytest.mark.parametrize("name", _FORGED)
def test_forged_tokens_are_refused(tokens: ServiceTokens, name: str) -> None:
    """No token chooses how it is checked (RFC 8725): none, key confusion, embedded keys."""
    assert tokens.grant(_FORGED[name]()) is None


def test_clocks_may_differ_a_little() -> None:
    """As much as the rules say, either way."""
    tokens = ServiceTokens(replace(RULES, leeway_s=600), secret=SECRET)
    now = int(time.time())
    assert tokens.grant(signed(exp=now - 300)) is not None
    assert tokens.grant(signed(nbf=now + 300, iat=now + 300)) is not None
    assert tokens.grant(signed(exp=now - 900)) is None
    assert tokens.grant(signed(nbf=now + 900)) is None


def test_each_kind_is_accepted_only_where_its_key_is(key_file: Path) -> None:
    """Without a secret no HS256, without a file nothing else; without both nothing."""
    assert ServiceTokens(RULES, jwks_file=key_file).grant(signed()) is None
    assert ServiceTokens(RULES, jwks_file=key_file).grant(handmade(_HS256, claims(), b"")) is None
    assert ServiceTokens(RULES, secret=SECRET).grant(signed("RS256")) is None
    assert ServiceTokens(RULES).grant(signed()) is None


def test_any_issuer_where_none_is_asked_for(key_file: Path) -> None:
    """Whoever holds the key is the issuer."""
    tokens = ServiceTokens(TokenRules("runstore"), secret=SECRET)
    assert tokens.grant(signed(iss=None)) is not None
    assert tokens.grant(signed(iss="anybody")) is not None


def test_token_without_a_key_id(tmp_path: Path) -> None:
    """Is checked with the only key of its algorithm; with two, nobody guesses which one is meant."""
    one = write_keys(tmp_path / "one.json", jwk(RSA, "RS256"), jwk(EC, "ES256"))
    two = write_keys(tmp_path / "two.json", jwk(RSA, "RS256"), jwk(OTHER_RSA, "RS256"))
    token = signed("RS256", headers={})
    assert ServiceTokens(RULES, jwks_file=one).grant(token) is not None
    assert ServiceTokens(RULES, jwks_file=two).grant(token) is None


def test_keys_are_rotated_without_a_restart(tmp_path: Path) -> None:
    """A new file counts at once; the key that it no longer has is useless."""
    path = write_keys(tmp_path / "keys.json", jwk(RSA, "RS256", "1"))
    tokens = ServiceTokens(RULES, jwks_file=path)
    old, new = signed("RS256", headers={"kid": "1"}), signed("RS256", key=OTHER_RSA, headers={"kid": "2"})
    assert (tokens.grant(old) is not None, tokens.grant(new) is not None) == (True, False)
    write_keys(tmp_path / "next.json", jwk(OTHER_RSA, "RS256", "2")).replace(path)
    assert (tokens.grant(old) is not None, tokens.grant(new) is not None) == (False, True)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"keys": []}'])
def test_slip_while_rotating_locks_nobody_out(tmp_path: Path, content: str | None) -> None:
    """The keys that were good go on, and the log says what is wrong once, not for each call."""
    path = write_keys(tmp_path / "keys.json", jwk(RSA, "RS256", "1"))
    tokens = ServiceTokens(RULES, jwks_file=path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
        os.utime(path, ns=(1, 1))
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert tokens.grant(signed("RS256", headers={"kid": "1"})) is not None
    assert [line["event"] for line in logs] == ["jwks_unreadable"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"keys": {}}',
        '{"keys": []}',
        '{"keys": [7]}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}]}',
        '{"keys": [{"kty": "RSA"}]}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        '{"keys": [{"kty": "?"}]}',
    ],
)
def test_unusable_key_file_stops_the_start(tmp_path: Path, content: str) -> None:
    """With a sentence that does not show what is in the file."""
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(BadKeySet) as refused:
        ServiceTokens(RULES, jwks_file=path)
    assert "c2Vj" not in str(refused.value)


def test_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    """A path with a typing error is found at the start."""
    with pytest.raises(BadKeySet, match="No such file"):
        ServiceTokens(RULES, jwks_file=tmp_path / "nowhere.json")


def test_keys_for_encryption_are_left_out(tmp_path: Path) -> None:
    """Issuers publish them in the same file."""
    path = write_keys(tmp_path / "keys.json", {**jwk(EC, "ES256"), "use": "enc"}, jwk(RSA, "RS256", "1"))
    tokens = ServiceTokens(RULES, jwks_file=path)
    assert tokens.grant(signed("RS256", headers={"kid": "1"})) is not None
    assert tokens.grant(signed("ES256", headers={})) is None
