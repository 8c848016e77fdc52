"""The trading policy: what is missing, unknown or absurd refuses to trade, in the file and in the command."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from quant_assets.orders.policy import Limits, OrderStyle, TradingPolicy, load_policy
from quant_resources.errors import ConfigurationError

#: What no bound is, as TOML writes it; null is written by nobody but a program.
ABSURD = ("''", "'much'", "nan", "inf", "-inf", "-1", "true", "false", "[]", "{}", "1e300")
#: Bounds that may be zero or small are not among those that zero switches off.
MAY_BE_ZERO = {"buying_power_reserve"}
NUMBERS = sorted(set(Limits.model_fields) - {"restricted"})


def policy_of(tmp_path: Path, text: str) -> TradingPolicy:
    """The policy of a file."""
    file = tmp_path / "trading.toml"
    file.write_text(text)
    return load_policy(file)


@pytest.mark.parametrize("name", NUMBERS)
def test_an_absurd_limit_refuses_to_trade(tmp_path: Path, name: str) -> None:
    """Every bound has a floor and a ceiling; the message names the file and the field."""
    for value in (*ABSURD, *(() if name in MAY_BE_ZERO else ("0",))):
        with pytest.raises(ConfigurationError, match="nothing is traded") as refused:
            policy_of(tmp_path, f"[limits]\n{name} = {value}")
        assert f"limits.{name}" in str(refused.value)
        assert "trading.toml" in str(refused.value)


@pytest.mark.parametrize("name", [*NUMBERS, "restricted"])
def test_a_missing_limit_refuses_to_trade(name: str) -> None:
    """A bound that is given as nothing is not the default: somebody meant something."""
    with pytest.raises(ConfigurationError, match=f"limits.{name}"):
        load_policy(None, limits={name: None})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_limit_has_a_default_inside_its_own_bounds(name: str) -> None:
    """A limit that is not named is in force."""
    default = getattr(Limits.model_validate({}), name)
    assert Limits.model_validate({name: str(default)}) == Limits.model_validate({})
    assert Decimal(default).is_finite()


@pytest.mark.parametrize(
    "text",
    [
        "[limits]\nname_weight = 1.5",
        "[limits]\ngross_exposure = 100",
        "[limits]\nnet_exposure = 5",
        "[limits]\nconcentration = 5",
        "[limits]\ndaily_loss = 0.6",
        "[limits]\ndrawdown = 0.9",
        "[limits]\nprice_collar = 0.6",
        "[limits]\nvolume_share = 1.1",
        "[limits]\nposition_notional = 1e9",
        "[limits]\norders_per_session = 1.5",
        "[limits]\norder_notinal = 100",
        "[limits]\nrestricted = 'AAA'",
        "[limits]\nrestricted = ['aaa']",
        "[limits]\nrestricted = ['']",
        "limits = 3",
        "allocations = {alpha = 0.7, beta = 0.7}",
        "allocations = {alpha = nan}",
        "book = 'a b; drop table orders'",
        "mode = 'yolo'",
        "[breakers]\nrejects = 0",
        "[breakers]\ndaily_loss_state = 'ACTIVE'",
        "[breakers]\nstale_share = 0",
        "[style]\norder_type = 'stop_limit'",
        "[style]\nlimit_offset_bps = 501",
        "[style]\nlimit_offset_bps = -1",
        "[style]\nstop_loss = 0",
        "[style]\norder_type = 'stop'\ntime_in_force = 'opg'",
        "[style]\nbrackets = true\ntime_in_force = 'cls'",
        "[style]\nbrackets = true\nsizing = 'notional'",
        "[style]\nbrackets = true\norder_type = 'stop'",
        "[style]\nsizing = 'notional'\ntime_in_force = 'gtc'",
        "[styles.alpha]\nsizing = 'notional'\norder_type = 'stop'",
        "not toml at all",
    ],
)
def test_a_policy_that_is_wrong_anywhere_is_no_policy(tmp_path: Path, text: str) -> None:
    """The message names the file and says that nothing is traded."""
    with pytest.raises(ConfigurationError, match=r"trading\.toml.*nothing is traded"):
        policy_of(tmp_path, text)


def test_a_file_that_is_no_text_refuses_to_trade(tmp_path: Path) -> None:
    file = tmp_path / "trading.toml"
    file.write_bytes(b"\xff\xfe[limits]")
    with pytest.raises(ConfigurationError, match="nothing is traded"):
        load_policy(file)


def test_a_policy_file_is_read_and_settings_win(tmp_path: Path) -> None:
    """Limits come from the file, the mode from the settings."""
    file = tmp_path / "trading.toml"
    file.write_text("allocations = {alpha = 0.25}\n[limits]\nname_weight = 0.05\n")
    policy = load_policy(file, mode="paper", book="other")
    assert (policy.limits.name_weight, policy.mode, policy.book) == (
        Decimal("0.05"),
        "paper",
        "other",
    )
    assert policy.allocation_of(["alpha", "beta"]) == {
        "alpha": Decimal("0.25"),
        "beta": Decimal("0.75"),
    }
    with pytest.raises(ConfigurationError, match="'alpha', which does not exist"):
        policy.allocation_of(["beta"])


def test_a_style_of_a_strategy_that_does_not_exist_refuses_to_trade(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "[styles.alhpa]\norder_type = 'limit'")
    with pytest.raises(ConfigurationError, match="style names the strategy 'alhpa'"):
        policy.allocation_of(["alpha"])


def test_orders_of_several_strategies_take_the_style_that_they_share(tmp_path: Path) -> None:
    """Where they differ, the book's own; what a strategy's style does not name is the book's too."""
    policy = policy_of(
        tmp_path,
        "[style]\ntime_in_force = 'gtc'\n[styles.alpha]\norder_type = 'limit'\n"
        "[styles.beta]\norder_type = 'limit'\n",
    )
    limit = OrderStyle.model_validate({"order_type": "limit", "time_in_force": "gtc"})
    assert policy.style_of(["alpha"]) == policy.style_of(["beta", "alpha"]) == limit
    assert policy.style_of(["alpha", "gamma"]) == policy.style_of([]) == policy.style
    assert policy.style.time_in_force == "gtc"


def quant(tmp_path: Path, *arguments: str) -> Any:
    """The command as a person starts it, in a data root of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from quant_assets.cli.main import main; main()", *arguments],
        cwd=tmp_path,
        env=os.environ | {"QUANT_DATA_ROOT": str(tmp_path / "root"), "COLUMNS": "500"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_quant_trade_refuses_before_anything_is_started(tmp_path: Path) -> None:
    """One sentence, exit code 1, and neither exchange nor database of the data root exists after it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "trading.toml").write_text("[limits]\ngross_exposure = 100\nname_weight = ''\n")
    ended = quant(tmp_path, "trade", "--mode", "paper")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    for words in ("limits.gross_exposure", "limits.name_weight", "nothing is traded until"):
        assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in root.iterdir()] == ["trading.toml"]
