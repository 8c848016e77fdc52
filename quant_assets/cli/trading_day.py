"""The phases of a trading day, as runs of the graph in their order.

Used by the demo and by `quant trade`; the schedules ask for the same jobs by the clock. Every phase can
be repeated: partitions that are there are not made again, a frozen batch is finished and not doubled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, time

from quant_assets.automation import jobs
from quant_assets.cli.graph_runs import GraphRunner
from quant_assets.market_span import MarketSpan
from quant_assets.orders.schemas import ORDER_INTENTS, TARGET_PORTFOLIO
from quant_resources.calendar import XNYS

#: New York hours of a trading day: data has arrived, orders leave, second legs leave, books are closed.
MORNING, BEFORE_OPEN, AFTER_OPEN, EVENING = time(7), time(9), time(10), time(18)


class TradingDay:
    """Runs what a trading day needs.

    Args:
        runner: Runs jobs.
        span: The market.
        strategies: Asset paths whose failure leaves the others running.
    """

    def __init__(self, runner: GraphRunner, span: MarketSpan, strategies: Iterable[str]) -> None:
        self._runner = runner
        self._span = span
        self._strategies = tuple(strategies)

    def learn_until(self, session: date, complete: bool = True) -> None:
        """Everything that is known at the close of `session`, from the first session of the market."""
        self.learn(XNYS.sessions(self._span.first_session, session), complete)

    def learn(self, sessions: Sequence[date], complete: bool = True) -> None:
        """Market data, features, labels, models and signals of neighbouring closed sessions.

        Labels of the last sessions stay out: they are known only when their horizon has closed.

        Args:
            sessions: The sessions, ascending.
            complete: Whether labels that no model learns from, those of longer horizons, are made too; the
                decisions of the next day do not need them.
        """
        keys = [day.isoformat() for day in sessions]
        self._runner.ensure(jobs.INGEST, keys)
        for job, horizon in self._runner.label_horizons().items():
            if job != jobs.LABEL and not complete:
                continue
            newly_labelled = (XNYS.offset(day, -horizon) for day in sessions)
            self._runner.ensure(
                job,
                [day.isoformat() for day in newly_labelled if day >= self._span.first_session],
            )
        for month in self._months(sessions):
            self._runner.ensure(jobs.TRAIN, [month.isoformat()])
        self._runner.ensure(jobs.SIGNAL, keys, optional=self._strategies)
        self._runner.ensure(jobs.COMPARE, keys)

    def trade(self, session: date, replan: bool = False) -> None:
        """Freeze and send the batch of a trading session; a frozen one is finished.

        Args:
            session: The session that can be traded now.
            replan: Replace a frozen batch by a new attempt: unsent orders are withdrawn, open ones
                cancelled, what filled is netted.
        """
        config = {table.path: {"replan": replan} for table in (TARGET_PORTFOLIO, ORDER_INTENTS)}
        self._runner.run(jobs.TRADE, [session.isoformat()], config=config)

    def settle(self, session: date) -> None:
        """Book fills, reconcile, freeze the evidence of a trading session that has closed."""
        self._runner.ensure(jobs.SETTLE, [session.isoformat()])

    def traded(self, session: date) -> bool:
        """Whether the session's evidence is frozen, that is, nothing is left to do."""
        return self._runner.done(jobs.SETTLE, session.isoformat())

    def backtest(self) -> None:
        """Every strategy over all stored history."""
        self._runner.run(jobs.BACKTEST, [], optional=self._strategies)

    def _months(self, sessions: Sequence[date]) -> list[date]:
        first = self._span.first_model_month
        return sorted({day.replace(day=1) for day in sessions if day >= first})
