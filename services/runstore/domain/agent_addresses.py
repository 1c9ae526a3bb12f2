"""Addresses of agents, which tracers may name instead of a project.

An address is `lrn:agents/<agent id>/environments/<environment>` (contract runs-v1, section 4.2). The project
that it stands for has the address as its name, so that an agent need not be registered before it traces.
"""

import re
from enum import StrEnum
from typing import Final

from runstore.domain.errors import invalid

_AGENT_ID: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ADDRESS: Final = re.compile(r"lrn:agents/([^/]*)/environments/([^/]*)")


class Environment(StrEnum):
    """Where an agent runs."""

    LOCAL = "local"
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


def check_agent_id(field: str, agent_id: str) -> None:
    """Raises RunstoreError INVALID_ARGUMENT unless `agent_id` can name an agent."""
    if _AGENT_ID.fullmatch(agent_id) is None:
        raise invalid(
            field, "must be 1 to 63 of a-z, 0-9 and '-', start with a letter and not end with a hyphen"
        )


def project_name(agent_id: str, environment: Environment) -> str:
    """The name of the project that holds the traces of an agent in an environment."""
    return f"lrn:agents/{agent_id}/environments/{environment}"


def project_of_address(field: str, address: str) -> str:
    """The name of the project that an address stands for. Raises RunstoreError INVALID_ARGUMENT."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise invalid(field, "must be lrn:agents/<agent id>/environments/<environment>")
    check_agent_id(field, found[1])
    if found[2] not in list(Environment):
        raise invalid(field, f"the environment must be one of {', '.join(Environment)}")
    return address
