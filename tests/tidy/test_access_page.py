"""docs/security.md shows the table of access as it is.

`RUNSTORE_REWRITE_GOLDENS=1 pytest tests/tidy/test_access_page.py` writes its tables anew.
"""

import os
from pathlib import Path

from runstore.domain.access import Access, has_access
from runstore.domain.access_table import METHODS, ROUTES
from runstore.domain.principals import Role

_PAGE = Path(__file__).parents[2] / "docs" / "security.md"
_BEGIN, _END = "<!-- generated: access -->\n", "<!-- /generated -->\n"
_MEANING = {
    Access.PUBLIC: "nothing",
    Access.TOKEN: "the token in the request",
    Access.PUBLISHED: "nothing for what is public, else to read",
    Access.MEMBER: "any credential",
    Access.INGEST: "to write runs and feedback",
    Access.READ: "to read",
    Access.EDIT: "to change, delete and share; to run graphs",
    Access.ADMIN: "to change the tenant itself",
    Access.OPERATOR: "the operator's key",
}


def tables() -> str:
    """Who has which access, and what needs it."""
    roles = " | ".join(f"`{role}`" for role in Role)
    lines = ["", f"| access | {roles} | operator |", "|---|" + "---|" * (len(Role) + 1)]
    for access, meaning in _MEANING.items():
        cells = [has_access(role, access) for role in Role]
        cells.append(has_access(None, access, is_operator=True))
        lines.append(
            f"| **{access.value}**: {meaning} | {' | '.join('yes' if cell else '' for cell in cells)} |"
        )
    lines += ["", "| access | HTTP | gRPC |", "|---|---|---|"]
    for access in _MEANING:
        routes = ", ".join(f"`{route}`" for route, needed in sorted(ROUTES.items()) if needed is access)
        methods = []
        for service, table in sorted(METHODS.items()):
            names = [method for method, needed in table.items() if needed is access]
            if names:
                methods.append(f"`{service.removeprefix('runstore.v1.')}`: {', '.join(names)}")
        lines.append(f"| **{access.value}** | {routes} | {'; '.join(methods)} |")
    return "\n".join([*lines, "", ""])


def test_page_shows_the_table_of_access() -> None:
    """Whoever reads who may do what reads what is enforced."""
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    shown, _, after = rest.partition(_END)
    if os.environ.get("RUNSTORE_REWRITE_GOLDENS") == "1":
        _PAGE.write_text(f"{before}{_BEGIN}{tables()}{_END}{after}")
    else:
        assert shown == tables()
