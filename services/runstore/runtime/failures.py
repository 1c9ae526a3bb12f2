"""Failures that end a process with a sentence for the operator, not a traceback."""


class CannotStart(Exception):
    """The process cannot do its work for a reason outside the program; the text says what to change."""


class BadSettings(Exception):
    """Settings that cannot be used; each line of the text names a setting and its variable."""
