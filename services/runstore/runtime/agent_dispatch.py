"""The store's side of agents, put together: the dispatcher and the services around it."""

from runstore.catalog.catalog import Catalog
from runstore.dispatch.dispatcher import Dispatcher
from runstore.dispatch.feeds import RunFeeds
from runstore.dispatch.questions import Questions
from runstore.dispatch.runs import AgentRuns
from runstore.dispatch.workers import Workers
from runstore.rpc.agent_questions import WorkerQuestions
from runstore.rpc.agent_runs import AgentRunServicer
from runstore.rpc.agent_services import AgentServicers
from runstore.rpc.agent_threads import ThreadServicer
from runstore.rpc.agent_worker import AgentWorkerServicer
from runstore.runtime.clock import Clock


class Agents:
    """One of each; `dispatcher.run()` is to be a task while the services are served."""

    def __init__(self, catalog: Catalog, clock: Clock, *, run_timeout_s: float) -> None:
        workers, feeds = Workers(), RunFeeds(clock)
        asked = Questions(workers)
        questions = WorkerQuestions(asked, catalog.assistants)
        self.dispatcher = Dispatcher(catalog.agent_claims, catalog.agent_runs, workers, feeds, asked)
        runs = AgentRuns(catalog.agent_runs, catalog.assistants, self.dispatcher, feeds)
        self.servicers = AgentServicers(
            runs=AgentRunServicer(runs, catalog.agent_runs, catalog.agent_threads, questions),
            threads=ThreadServicer(catalog.agent_threads, catalog.agent_runs, runs, feeds, questions),
            workers=AgentWorkerServicer(
                self.dispatcher, asked, catalog.assistants, run_timeout_s=run_timeout_s
            ),
        )
