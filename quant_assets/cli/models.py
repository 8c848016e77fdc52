"""`quant models`: the registry, and which model serves from when."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.settings import load_settings

app = typer.Typer(help="The model registry.", no_args_is_help=True)


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every registered model, newest month first, with its evidence."""
    from quant_assets.cli.platform import ledger_only
    from quant_assets.cli.shown import print_rows
    from quant_resources.ledger import registry

    with ledger_only(load_settings()) as ledger, ledger.begin() as transaction:
        rows = [
            {
                "model_version": found.model.model_version,
                "status": found.status,
                "effective_session": found.effective_session,
                "training_first_session": found.model.training_first_session,
                "training_last_session": found.model.training_last_session,
                "ic_mean": found.model.metrics.get("ic_mean"),
                "rank_ic_mean": found.model.metrics.get("rank_ic_mean"),
            }
            for found in registry.list_models(transaction)
        ]
    print_rows(Console(), "Models", rows, as_json)


@app.command("activate")
def activate(
    version: Annotated[str, typer.Argument(help="Model version to put into force.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    effective: Annotated[
        str | None, typer.Option(help="First session it serves; the next one by default.")
    ] = None,
) -> None:
    """Put a registered model into force from a session on."""
    from quant_assets.cli.backfill import day_of
    from quant_assets.cli.broker_time import newest_closed_session
    from quant_assets.cli.platform import running_platform
    from quant_resources.calendar import XNYS
    from quant_resources.ledger import registry

    with running_platform(load_settings()) as platform:
        session = day_of(effective) or XNYS.next(newest_closed_session(platform))
        with platform.ledger.begin() as transaction:
            chosen = registry.model(transaction, version)
            registry.activate_model(
                transaction,
                model_name=chosen.model_name,
                model_version=version,
                effective_session=session,
                activated_by=getpass.getuser(),
                reason=reason,
            )
    Console().print(f"{version} serves from {session} on.")


@app.command("rollback")
def roll_back(
    name: Annotated[str, typer.Argument(help="Model name, such as alpha158_lightgbm.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
) -> None:
    """Put the model that was in force before the present one into force again."""
    from quant_assets.cli.broker_time import newest_closed_session
    from quant_assets.cli.platform import running_platform
    from quant_resources.calendar import XNYS
    from quant_resources.ledger import registry

    with running_platform(load_settings()) as platform:
        session = XNYS.next(newest_closed_session(platform))
        with platform.ledger.begin() as transaction:
            version = registry.roll_back(
                transaction,
                model_name=name,
                effective_session=session,
                activated_by=getpass.getuser(),
                reason=f"rollback: {reason}",
            )
    Console().print(f"{version} serves from {session} on.")
