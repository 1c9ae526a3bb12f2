"""Indexes and searches a dataset with whichever `langsmith` is on the path, and prints what it saw."""

import asyncio
import json
import sys
import uuid
from typing import Any

import langsmith
from langsmith import AsyncClient, Client
from langsmith.utils import LangSmithError


def refused(client: Any, dataset_id: uuid.UUID) -> bool:
    try:
        client.similar_examples({"q": "x"}, limit=1, dataset_id=dataset_id)
    except LangSmithError as error:
        return "not indexed" in str(error)
    return False


async def found_by_async(url: str, dataset_id: uuid.UUID) -> list[str]:
    client: Any
    async with AsyncClient(url, api_key="any") as client:
        await client.index_dataset(dataset_id=dataset_id)
        await client.sync_indexed_dataset(dataset_id=dataset_id)
        found = await client.similar_examples({"q": "ÜBER"}, limit=3, dataset_id=dataset_id)
    return [each.inputs["q"] for each in found]


def main(url: str) -> None:
    client: Any = Client(url, api_key="any")
    dataset = client.create_dataset(f"dataset-{uuid.uuid4().hex}")
    texts = ["how to load a page", "load load load", "a lambda that says über", "nothing alike"]
    for number, text in enumerate(texts):
        client.create_example(
            {"q": text}, outputs={"n": number}, dataset_id=dataset.id, metadata={"n": number}
        )
    before = refused(client, dataset.id)
    client.index_dataset(dataset_id=dataset.id)
    client.sync_indexed_dataset(dataset_id=dataset.id)

    def search(text: str, **more: object) -> list[str]:
        found = client.similar_examples({"other": [text]}, limit=3, dataset_id=dataset.id, **more)
        return [each.inputs["q"] for each in found]

    first, filtered = search("please load the PAGE"), search("load", filter="eq(metadata.n, 0)")
    [changed] = client.list_examples(dataset_id=dataset.id, metadata={"n": 1})
    client.update_example(changed.id, inputs={"q": "page page page"})
    [deleted] = client.list_examples(dataset_id=dataset.id, metadata={"n": 0})
    client.delete_example(deleted.id)
    client.create_example({"q": "load more"}, dataset_id=dataset.id)
    seen = {
        "version": langsmith.__version__,
        "refused_before": before,
        "first": first,
        "filtered": filtered,
        "page": search("page"),
        "load": search("load"),
        "words_of_filters": search('AND ) OR "'),
        "asynchronous": asyncio.run(found_by_async(url, dataset.id)),
    }
    sys.stdout.write(json.dumps(seen))


main(sys.argv[1])
