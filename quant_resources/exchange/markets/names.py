"""Plausible tickers and company names for made-up markets; nothing here is a real listing on purpose."""

from __future__ import annotations

import numpy as np

_CONSONANTS = "BCDFGHKLMNPRSTVWZ"
_VOWELS = "AEIOUY"
_FIRST = (
    "Alder",
    "Beacon",
    "Cobalt",
    "Dune",
    "Ember",
    "Falcon",
    "Granite",
    "Harbor",
    "Indigo",
    "Juniper",
    "Kestrel",
    "Larch",
    "Meridian",
    "Nimbus",
    "Orchard",
    "Pinnacle",
    "Quarry",
    "Ridge",
    "Summit",
    "Tidewater",
    "Umber",
    "Vantage",
    "Willow",
    "Yarrow",
    "Zephyr",
)
_SECOND = (
    "Aerospace",
    "Bancorp",
    "Biosciences",
    "Chemical",
    "Devices",
    "Energy",
    "Foods",
    "Freight",
    "Holdings",
    "Industries",
    "Insurance",
    "Laboratories",
    "Logistics",
    "Materials",
    "Media",
    "Networks",
    "Pharma",
    "Power",
    "Realty",
    "Retail",
    "Robotics",
    "Semiconductor",
    "Software",
    "Systems",
    "Utilities",
)


def tickers(rng: np.random.Generator, count: int) -> list[str]:
    """`count` different pronounceable symbols of three or four letters, ascending."""
    found: set[str] = set()
    while len(found) < count:
        letters = [rng.choice(list(_CONSONANTS)), rng.choice(list(_VOWELS))]
        letters.append(rng.choice(list(_CONSONANTS)))
        if rng.random() < 0.6 or len(found) > 1000:
            letters.append(rng.choice(list(_VOWELS + _CONSONANTS)))
        found.add("".join(letters))
    return sorted(found)


def company_names(rng: np.random.Generator, count: int) -> list[str]:
    """`count` company names; a few may be alike, as in life."""
    first, second = rng.integers(0, len(_FIRST), count), rng.integers(0, len(_SECOND), count)
    return [f"{_FIRST[a]} {_SECOND[b]} Inc." for a, b in zip(first, second, strict=True)]
