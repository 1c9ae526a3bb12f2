"""What is transactional and small: projects, tenants, API keys, secrets of the server."""

from runstore.catalog.catalog import Catalog, open_catalog
from runstore.catalog.migrations import SchemaTooNew

__all__ = ["Catalog", "SchemaTooNew", "open_catalog"]
