"""Finds every strategy in the package `strategies`: a new file there is a new asset.

Belongs here: scanning and the rules of names. Does not belong here: what a strategy is (`strategy.py`).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable
from types import ModuleType

from quant_assets.signals import strategies as package
from quant_assets.signals.strategy import Strategy
from quant_resources.errors import ConfigurationError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,19}")


class StrategyDeclarationError(ConfigurationError):
    """A strategy's class attributes are missing, malformed or taken."""


def discover() -> tuple[Strategy, ...]:
    """One instance of every strategy class defined in the files of `strategies`, ascending by name.

    Raises:
        StrategyDeclarationError: A file holds no strategy, or a declaration is wrong.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = (importlib.import_module(f"{package.__name__}.{name}") for name in names)
    return validated(strategy for module in modules for strategy in strategies_in(module))


def strategies_in(module: ModuleType) -> list[Strategy]:
    """Instances of the concrete strategy classes that `module` defines itself (imports do not count).

    Raises:
        StrategyDeclarationError: There are none.
    """
    classes = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Strategy)
        and not inspect.isabstract(kind)
        and kind.__module__ == module.__name__
    ]
    if not classes:
        raise StrategyDeclarationError(
            f"{module.__name__} defines no complete strategy: subclass Strategy and write its "
            "signals method, or move the file out of quant_assets/signals/strategies."
        )
    return [kind() for kind in classes]


def validated(strategies: Iterable[Strategy]) -> tuple[Strategy, ...]:
    """The strategies ascending by name, if every declaration is legal and every name its own.

    Columns and tables are not looked up here: a strategy that asks for what does not exist fails its
    own asset, not the graph.

    Raises:
        StrategyDeclarationError: Naming the class, the rule and the remedy.
    """
    taken: dict[str, str] = {}
    found = list(strategies)
    for strategy in found:
        where = f"{type(strategy).__module__}.{type(strategy).__qualname__}"
        for attribute, pattern in (("name", _NAME), ("version", _VERSION)):
            value = getattr(strategy, attribute, None)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise StrategyDeclarationError(
                    f"Strategy {where} has the {attribute} {value!r}; it must match "
                    f"{pattern.pattern} (for example name = 'mean_reversion', version = '1')."
                )
        if strategy.name in taken:
            raise StrategyDeclarationError(
                f"Strategies {taken[strategy.name]} and {where} are both named "
                f"{strategy.name!r}: rename one."
            )
        for path, columns in strategy.features.items():
            if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
                raise StrategyDeclarationError(
                    f"Strategy {where} declares the columns of {path} as {columns!r}; write a tuple "
                    "of names, with a comma after a single one."
                )
        taken[strategy.name] = where
    return tuple(sorted(found, key=lambda strategy: strategy.name))
