"""Transactions, locks and exact numbers of the ledger."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.exc import DBAPIError, StatementError

from quant_resources.database_url import DatabaseUnreachableError
from quant_resources.ledger.base import QUANTUM, ExactNumeric, UtcDateTime, quantize
from quant_resources.ledger.ledger import Ledger, LedgerBusyError

AMOUNTS = st.decimals(
    min_value=Decimal("-1e18"), max_value=Decimal("1e18"), allow_nan=False, places=9
)


def test_a_transaction_that_raises_leaves_nothing(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        transaction.execute(text("CREATE TABLE kept (value int)"))

    def fail_after_writing() -> None:
        with ledger.begin() as transaction:
            transaction.execute(text("INSERT INTO kept VALUES (1)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_writing()

    with ledger.begin() as transaction:
        assert transaction.scalar(text("SELECT count(*) FROM kept")) == 0


def test_a_restarted_server_is_not_noticed_by_the_next_transaction(ledger: Ledger) -> None:
    with ledger.begin() as transaction:
        backend = transaction.scalar(text("SELECT pg_backend_pid()"))
    with ledger.begin() as other, ledger.begin() as killer:
        pids = {other.scalar(text("SELECT pg_backend_pid()")), backend}
        me = killer.scalar(text("SELECT pg_backend_pid()"))
        for pid in pids - {me}:
            killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(DBAPIError):
            other.execute(text("SELECT 1"))
        other.invalidate()

    with ledger.begin() as transaction:
        assert transaction.scalar(text("SELECT 1")) == 1


def test_a_lock_excludes_other_processes_until_its_holder_is_killed(ledger: Ledger) -> None:
    url = ledger.url.render_as_string(hide_password=False)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from quant_resources.ledger.ledger import Ledger\n"
            "with Ledger(sys.argv[1]).exclusive('orders:A1'):\n"
            "    print('held', flush=True); time.sleep(60)",
            url,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    with pytest.raises(LedgerBusyError, match="'orders:A1'"), ledger.exclusive("orders:A1"):
        pass
    with ledger.exclusive("orders:A2") as lock:
        lock.verify()
    holder.kill()
    holder.communicate()
    with ledger.exclusive("orders:A1", wait_seconds=5):
        pass
    with ledger.exclusive("orders:A1"):
        pass


def test_a_lost_lock_is_noticed_before_something_irrevocable(ledger: Ledger) -> None:
    with ledger.exclusive("orders:A1") as lock:
        with ledger.begin() as transaction:
            transaction.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks "
                    "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                )
            )
        for _ in range(2):
            with pytest.raises(DatabaseUnreachableError, match="was lost"):
                lock.verify()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:secret@127.0.0.1:1/ledger",
        "postgresql://ann:secret@no-such-host.invalid/ledger",
        # An address of documentation, where packets disappear.
        "postgresql://ann:secret@192.0.2.1:5432/ledger",
    ],
)
def test_no_answer_is_one_sentence_within_seconds_and_without_the_password(url: str) -> None:
    started = time.monotonic()
    with pytest.raises(DatabaseUnreachableError) as caught, Ledger(url).begin():
        pass

    message = str(caught.value)
    assert time.monotonic() - started < 8
    assert message.startswith("The database 'ledger' on ")
    assert "QUANT_DATABASE_URL" in message
    assert "secret" not in message
    assert "\n" not in message


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=AMOUNTS)
def test_an_amount_is_read_back_exactly(ledger: Ledger, amount: Decimal) -> None:
    with ledger.begin() as transaction:
        stored = transaction.scalar(select(bindparam("a", amount, ExactNumeric)))

    assert stored == amount
    assert isinstance(stored, Decimal)


@pytest.mark.parametrize(
    ("given_value", "stored"),
    [("0.0000000005", "0"), ("0.0000000015", "0.000000002"), ("-2.5", "-2.5"), (7, "7")],
)
def test_more_decimals_than_the_ledger_keeps_are_rounded_half_to_even(
    given_value: str | int, stored: str
) -> None:
    assert quantize(Decimal(given_value)) == Decimal(stored)
    assert quantize(Decimal(given_value)).as_tuple().exponent == QUANTUM.as_tuple().exponent


@pytest.mark.parametrize("value", [0.1, True, "1", Decimal("NaN"), Decimal("Infinity")])
def test_what_is_no_exact_number_is_refused(ledger: Ledger, value: object) -> None:
    with (
        pytest.raises(StatementError, match="The ledger takes"),
        ledger.begin() as transaction,
    ):
        transaction.scalar(select(bindparam("a", value, ExactNumeric)))


def test_times_keep_their_instant_and_naive_ones_are_refused(ledger: Ledger) -> None:
    new_york = datetime(2024, 3, 8, 9, 30, tzinfo=timezone(timedelta(hours=-5)))
    with ledger.begin() as transaction:
        read = transaction.scalar(select(bindparam("t", new_york, UtcDateTime)))
    assert read == new_york
    assert read is not None
    assert read.tzinfo is UTC

    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(datetime(2024, 3, 8, 9, 30), dialect())  # noqa: DTZ001
