"""The README promises commands: each exists with the options it names, and CI runs its test command."""

from __future__ import annotations

import re
import shlex
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer

from quant_assets.cli.main import app
from quant_assets.orders.policy import TradingPolicy

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line[found.end() :].split("#")[0].split("&&")[0].strip(' ")')
        for block in BLOCKS
        for line in block.splitlines()
        for found in re.finditer(r"\buv run quant ", line)
    }
    | set(re.findall(r"^\| `quant ([^`\[/]+?)(?: \[[^`]*| / [^`]*)?`", README, flags=re.MULTILINE))
)


def test_the_first_block_holds_the_two_commands() -> None:
    assert BLOCKS[0].splitlines() == [
        "pip install uv && uv run quant demo",
        "pip install uv && uv run pytest",
    ]


def test_ci_runs_the_readmes_test_command_and_then_the_linters() -> None:
    script = (ROOT / ".ci/run").read_text()
    wanted = [*BLOCKS[0].splitlines()[1].split(" && "), "uv run ruff check", "uv run pyright"]
    places = [script.index(f"\n{command}") for command in wanted]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command: str) -> None:
    node: Any = typer.main.get_command(app)
    words = shlex.split(command)
    while words and hasattr(node, "commands") and not words[0].startswith("--"):
        assert words[0] in node.commands, f"quant {command}"
        node = node.commands[words.pop(0)]
    known = {option for parameter in node.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, f"quant {command}"


def test_every_command_is_in_the_readme() -> None:
    root: Any = typer.main.get_command(app)
    named = {command.split()[0] for command in COMMANDS}
    assert set(root.commands) <= named | {"resume"}


def test_the_trading_rules_shown_are_rules_that_load() -> None:
    style, limits = (
        TradingPolicy.model_validate(tomllib.loads(block))
        for block in re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    )
    assert style.style.order_type == "limit"
    momentum = style.styles["enhanced_momentum"]
    assert momentum.brackets
    # What a strategy's style does not name is the book's.
    assert (momentum.order_type, momentum.limit_offset_bps) == ("limit", 20)
    assert limits.limits.name_weight == Decimal("0.05")
    assert sum(limits.allocations.values()) == 1
