"""The store's side of agents, put together: the dispatcher and the services around it."""

from collections.abc import Coroutine, Iterator
from typing import Any

from runstore.catalog.catalog import Catalog
from runstore.dispatch.cron_scheduler import CronScheduler
from runstore.dispatch.dispatcher import Dispatcher
from runstore.dispatch.feeds import RunFeeds
from runstore.dispatch.questions import Questions
from runstore.dispatch.runs import AgentRuns
from runstore.dispatch.sweeper import Sweeper
from runstore.dispatch.webhook_sender import WebhookSender
from runstore.dispatch.workers import Workers
from runstore.domain.webhooks import WebhookPolicy
from runstore.rpc.agent_questions import WorkerQuestions
from runstore.rpc.agent_runs import AgentRunServicer
from runstore.rpc.agent_services import AgentServicers
from runstore.rpc.agent_threads import ThreadServicer
from runstore.rpc.agent_worker import AgentWorkerServicer
from runstore.rpc.assistants import AssistantServicer
from runstore.rpc.crons import CronServicer
from runstore.runtime.clock import Clock


class Agents:
    """One of each; `work` is to be done while the services are served."""

    def __init__(
        self, catalog: Catalog, clock: Clock, webhooks: WebhookPolicy, *, run_timeout_s: float
    ) -> None:
        workers, feeds = Workers(), RunFeeds(clock)
        asked = Questions(workers)
        questions = WorkerQuestions(asked, catalog.assistants)
        self.dispatcher = Dispatcher(catalog.agent_claims, catalog.agent_runs, workers, feeds, asked)
        runs = AgentRuns(catalog.agent_runs, catalog.assistants, self.dispatcher, feeds, webhooks)
        threads = ThreadServicer(catalog.agent_threads, catalog.agent_runs, runs, feeds, questions)
        crons = CronServicer(catalog, runs, clock)
        self._webhooks = WebhookSender(catalog.webhook_outbox, webhooks, clock)
        self._crons = CronScheduler(catalog.crons, crons.create_run, clock)
        self._sweeper = Sweeper(catalog.agent_items)
        self.servicers = AgentServicers(
            runs=AgentRunServicer(runs, catalog.agent_runs, catalog.agent_threads, questions),
            threads=threads,
            assistants=AssistantServicer(
                catalog.assistants, catalog.agent_threads, runs, questions, threads.delete
            ),
            crons=crons,
            workers=AgentWorkerServicer(
                self.dispatcher, asked, catalog.assistants, run_timeout_s=run_timeout_s
            ),
        )

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on beside the services until it is cancelled."""
        yield self.dispatcher.run()
        yield self._webhooks.run()
        yield self._crons.run()
        yield self._sweeper.run()
