"""Reads which webhooks are called from the `langgraph.json` that the workers have, too."""

import json

from runstore.agents.manifest import BadManifest, read_manifest
from runstore.domain.errors import RunstoreError
from runstore.domain.webhooks import WebhookPolicy, webhook_policy
from runstore.runtime.failures import CannotStart
from runstore.runtime.settings import Settings


def read_webhook_policy(settings: Settings) -> WebhookPolicy:
    """The policy of the file in `settings.agents`; the default one without a file.

    Raises CannotStart for a file that cannot be read, and for a policy that is not understood.
    """
    if settings.agents is None:
        return WebhookPolicy()
    try:
        manifest = read_manifest(settings.agents)
        document = json.loads(manifest.path.read_text())
        return webhook_policy(document, {**manifest.environment, **settings.environment()})
    except BadManifest as error:
        raise CannotStart(str(error)) from error
    except RunstoreError as error:
        raise CannotStart(f"{settings.agents}: {error.field}: {error.message}") from error
