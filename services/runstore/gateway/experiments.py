"""The experiments on a dataset: projects that refer to it."""

from typing import Final

from runstore.gateway.store_client import Credentials, StoreClient
from runstore.gateway.time_fields import to_time_us
from runstore.gateway.windows import Window
from runstore.v1 import project_service_pb2 as pb

_A_PAGE: Final = 1_000


async def experiments_on(
    store: StoreClient, dataset_id: str, window: Window, credentials: Credentials
) -> list[pb.Project]:
    """The experiments that began before the end of the window: those that begin while a list is walked would
    make it another one."""
    found: list[pb.Project] = []
    while True:
        query = pb.ListProjectsRequest(
            reference_dataset_ids=[dataset_id], oldest_first=True, offset=len(found), page_size=_A_PAGE
        )
        page = (await store.list_projects(query, credentials)).projects
        found += page
        if len(page) < _A_PAGE:
            return [each for each in found if to_time_us(each.start_time) <= window.max_start_time_us]
