"""Alembic's entry point: runs the steps on the connection that `migrate` hands over, in its transaction."""

from alembic import context

from runstore.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
