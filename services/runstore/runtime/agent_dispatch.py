"""The store's side of agents, put together: the dispatcher and the services around it."""

import asyncio

from runstore.catalog.catalog import Catalog
from runstore.dispatch.cron_scheduler import CronScheduler
from runstore.dispatch.dispatcher import EXPIRE_AFTER_S, LOOK_EVERY_S, Dispatcher
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
    """One of each. Started once the services are served, and stopped before they are not."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        webhooks: WebhookPolicy,
        *,
        run_timeout_s: float,
        look_every_s: float = LOOK_EVERY_S,
        expire_after_s: float = EXPIRE_AFTER_S,
    ) -> None:
        workers, feeds = Workers(), RunFeeds(clock)
        asked = Questions(workers)
        questions = WorkerQuestions(asked, catalog.assistants)
        self.dispatcher = Dispatcher(
            catalog.agent_claims,
            catalog.agent_runs,
            workers,
            feeds,
            asked,
            look_every_s=look_every_s,
            expire_after_s=expire_after_s,
        )
        runs = AgentRuns(catalog.agent_runs, catalog.assistants, self.dispatcher, feeds, webhooks)
        threads = ThreadServicer(catalog.agent_threads, catalog.agent_runs, runs, feeds, questions)
        crons = CronServicer(catalog, runs, clock)
        self._webhooks = WebhookSender(catalog.webhook_outbox, webhooks, clock)
        self._crons = CronScheduler(catalog.crons, crons.create_run, clock)
        self.sweeper = Sweeper(catalog.agent_items, catalog.agent_threads, threads.prune)
        self._tasks: list[asyncio.Task[None]] = []
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

    def start(self) -> None:
        """Runs go to workers from now on, webhooks to their receivers, and crons make runs."""
        beside = (self._webhooks.run(), self._crons.run(), self.sweeper.run())
        self._tasks = [asyncio.create_task(each) for each in (self.dispatcher.run(), *beside)]

    async def stop(self) -> None:
        """Ends the workers' streams; returns when no transaction of the dispatcher is under way."""
        self.dispatcher.stop()
        dispatching, *beside = self._tasks
        for task in beside:
            task.cancel()
        await dispatching
