"""What every command does first: read the settings, set up the logs, turn failures into sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from runstore.domain.errors import RunstoreError
from runstore.runtime.failures import BadSettings, CannotStart

if TYPE_CHECKING:
    from runstore.runtime.settings import Settings

_FAILURE = 1
_BAD_SETTINGS = 2


def start(process: str, *, is_child: bool = False, **options: object) -> "Settings":
    """The settings, with `options` before the environment; logs are set up in their format.

    Warns of variables that are no settings, unless that is done already by the process whose child this is.
    Raises BadSettings, which `failures_as_sentences` prints.
    """
    import structlog

    from runstore.runtime.logging import configure_logging
    from runstore.runtime.settings import load_settings, unknown_variables

    settings = load_settings(**options)
    configure_logging(process=process, level=settings.log_level, log_format=settings.log_format)
    for variable, meant in ({} if is_child else unknown_variables()).items():
        structlog.get_logger(__name__).warning("unknown setting", variable=variable, did_you_mean=meant)
    return settings


@contextmanager
def failures_as_sentences() -> Iterator[None]:
    """Ends the command in a way that a person can act on.

    Status 2 after naming each setting at fault and its variable; status 1 after one line for what an
    operator can mend, or a logged traceback for what is a defect.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BadSettings as error:
        for line in str(error).splitlines():
            typer.echo(f"runstore: bad setting: {line}", err=True)
        raise typer.Exit(_BAD_SETTINGS) from None
    except (CannotStart, RunstoreError) as error:
        typer.echo(f"runstore: {error}", err=True)
        raise typer.Exit(_FAILURE) from None
    except Exception as error:
        import structlog

        structlog.get_logger(__name__).exception("unexpected failure")
        raise typer.Exit(_FAILURE) from error
