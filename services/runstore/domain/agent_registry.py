"""Registered agents: who traces under an id of its own, and where it runs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runstore.domain.agent_addresses import Environment, project_name

MAX_AGENTS: Final = 1_000
"""Most agents of one tenant."""


class AgentType(StrEnum):
    """What an agent is for."""

    CUSTOM = "CUSTOM"
    CODING = "CODING"


class SourceType(StrEnum):
    """What runs an agent."""

    LSD = "LSD"
    MDA = "MDA"
    EXTERNAL = "EXTERNAL"
    FLEET = "FLEET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent."""

    id: str
    """Unique in its tenant; `agent_addresses.check_agent_id` holds."""
    tenant_id: str
    name: str
    agent_type: AgentType = AgentType.CUSTOM
    source_type: SourceType = SourceType.EXTERNAL
    owner_id: str | None = None
    production_only: bool = False
    created_at_us: int

    @property
    def projects(self) -> dict[Environment, str]:
        """The name of the project of each of its environments."""
        environments = (Environment.PRODUCTION,) if self.production_only else tuple(Environment)
        return {environment: project_name(self.id, environment) for environment in environments}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPatch:
    """Changes to an agent. None keeps what is there."""

    name: str | None = None
    agent_type: AgentType | None = None
    source_type: SourceType | None = None
    owner_id: str | None = None
    """"" for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFilter:
    """Which agents to list. Conditions left at their default do not restrict."""

    ids: tuple[str, ...] = ()
    name: str | None = None
    """Part of the name, upper and lower case alike."""
    source_type: SourceType | None = None
