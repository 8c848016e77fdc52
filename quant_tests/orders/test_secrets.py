"""No key of the broker appears in any log, event, run config, ledger row or file, whatever goes wrong.

The keys have a value that is found wherever it stands. They are used, as in life, from the environment by the
resource that Dagster gives to the assets; the exchange is asked with them, and answers, refuses and breaks.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from quant_assets.market_span import MarketSpan
from quant_assets.orders import CHECKS, TABLES, assets
from quant_assets.partitions import partitions_for
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import check_definitions
from quant_resources.calendar import XNYS
from quant_resources.resources import BrokerResource, LedgerResource
from quant_tests.orders.ground import FIRST, LAST, Ground, signal_table, signals

MONDAY = date(2024, 3, 4)
KEY, SECRET = "PKRECOGNISABLE0001", "sEcRet-recognisable-4711"
PASSWORD = "recognisable-password"  # noqa: S105 - made to be looked for
LOOKED_FOR = tuple(
    form
    for value in (KEY, SECRET, PASSWORD)
    for form in (value.encode(), base64.b64encode(value.encode()))
)
#: Each breaks the run in another place; the last run has none.
FAULTS = (
    {"fault": {"kind": "status", "status": 401, "message": "keys are not valid"}, "path": "/v2/*"},
    {"fault": {"kind": "html"}, "path": "/v2/account"},
    {"fault": {"kind": "reset"}, "method": "POST", "path": "/v2/orders"},
    {"fault": {"kind": "status", "status": 422}, "method": "POST", "path": "/v2/orders"},
    None,
)


@pytest.fixture
def keyed(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """The ground, with keys and a database password that can be recognised."""
    url = ground.ledger.url.set(password=PASSWORD)
    monkeypatch.setenv("ALPACA_API_KEY", KEY)
    monkeypatch.setenv("ALPACA_SECRET_KEY", SECRET)
    monkeypatch.setenv("QUANT_DATABASE_URL", url.render_as_string(hide_password=False))
    return ground


def run_day(ground: Ground, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Plan and send by Dagster, with the resources of the platform."""
    strategies = [signal_table("alpha")]
    partitions = partitions_for(
        MarketSpan(first_session=FIRST, last_session=LAST, first_trading_session=MONDAY)
    )
    chosen = {"orders/target_portfolio", "orders/order_intents"}
    return dg.materialize(
        [
            *(
                partitions.place(asset)
                for asset in assets(strategies)
                if asset.key.to_user_string() in chosen
            ),
            *(
                check
                for check in check_definitions(TABLES, CHECKS, partitions)
                if {key.asset_key.to_user_string() for key in check.check_keys} <= chosen
            ),
        ],
        partition_key=MONDAY.isoformat(),
        resources={
            "table_io": TableIOManager(ground.store, [*TABLES, *strategies]),
            "store": ground.store,
            "ledger": LedgerResource(
                data_root=str(ground.folder), database_url=dg.EnvVar("QUANT_DATABASE_URL")
            ),
            "broker": BrokerResource(
                data_root=str(ground.folder),
                data_url=ground.broker.data_url,
                trading_url=ground.broker.trading_url,
                api_key=dg.EnvVar("ALPACA_API_KEY"),
                secret_key=dg.EnvVar("ALPACA_SECRET_KEY"),
            ),
            "trading_policy": ground.policy,
        },
        raise_on_error=False,
        instance=instance,
    )


def ledger_rows(ground: Ground) -> Iterator[bytes]:
    """Every row of every table as text."""
    with ground.ledger.begin() as session:
        tables = session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        assert "order_events" in tables
        for table in tables:
            rows = session.scalars(text(f'SELECT t::text FROM "{table}" t'))  # noqa: S608
            yield from (row.encode() for row in rows)


def dagster_records(instance: dg.DagsterInstance) -> Iterator[bytes]:
    """Run config, tags and every event of every run."""
    for run in instance.get_runs():
        yield repr((run.run_config, run.tags)).encode()
        for entry in instance.all_logs(run.run_id):
            yield dg.serialize_value(entry).encode()
            yield str(entry).encode()


def files_below(folder: Path) -> Iterator[bytes]:
    """Every file, whatever it is."""
    yield from (file.read_bytes() for file in folder.rglob("*") if file.is_file())


def found_in(places: Iterator[bytes]) -> tuple[int, list[bytes]]:
    """How many places were searched, and those that show a secret."""
    count, shown = 0, []
    for place in places:
        count += 1
        shown += [place for secret in LOOKED_FOR if secret in place]
    return count, shown


def test_no_secret_appears_anywhere(
    keyed: Ground,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A real run with keys, and one for each way in which it fails."""
    caplog.set_level(logging.DEBUG)
    before = XNYS.previous(MONDAY)
    keyed.store_bars(before)
    table = signal_table("alpha")
    keyed.store.write(table, signals("alpha", before, {"AAA": 0.3}), [before.isoformat()])
    home = tmp_path / "dagster"
    home.mkdir()
    succeeded = []
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        for fault in FAULTS:
            if fault is None:
                keyed.exchange.clear_faults()
            else:
                keyed.exchange.inject({"rules": [fault]})
            succeeded.append(run_day(keyed, instance).success)
        records, shown = found_in(dagster_records(instance))
    assert shown == []
    assert records > 10 * len(FAULTS)
    # The runs did what they were to do: some failed, the last traded with these keys.
    assert not succeeded[0]
    assert succeeded[-1]
    output, errors = capfd.readouterr()
    said = iter([output.encode(), errors.encode(), caplog.text.encode()])
    for places in (ledger_rows(keyed), files_below(tmp_path), said):
        searched, shown = found_in(places)
        assert shown == []
        assert searched > 0


def test_the_search_finds_what_it_looks_for(keyed: Ground, tmp_path: Path) -> None:
    """A search that could not find a secret would prove nothing."""
    (tmp_path / "leak.log").write_text(f"sent with {SECRET}")
    assert found_in(files_below(tmp_path))[1] != []
    with keyed.ledger.begin() as session:
        session.execute(text("CREATE TABLE leak (note text)"))
        session.execute(text("INSERT INTO leak VALUES (:note)"), {"note": f"key {KEY}"})
    assert found_in(ledger_rows(keyed))[1] != []


def test_settings_and_clients_do_not_print_secrets(keyed: Ground) -> None:
    """What a person may print while looking for a fault."""
    from quant_resources.alpaca_broker import AlpacaBroker
    from quant_resources.ledger.ledger import Ledger
    from quant_resources.settings import load_settings

    settings = load_settings()
    broker = AlpacaBroker("http://127.0.0.1:1", "http://127.0.0.1:1", KEY, SECRET)
    ledger = Ledger(f"postgresql://me:{PASSWORD}@127.0.0.1:1/nothing")
    for thing in (settings, broker, ledger, settings.model_dump(mode="json")):
        shown = f"{thing!r} {thing}".encode()
        assert not [secret for secret in LOOKED_FOR if secret in shown]
    broker.close()
    ledger.dispose()
