"""Literals, for where the engine takes no parameter."""


def quoted(text: str) -> str:
    """A string literal."""
    literal = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{literal}'"
