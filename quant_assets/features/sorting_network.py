"""Merging of sorted lists of arrays, element by element, by minima and maxima alone.

Belongs here: building and running the networks. Does not belong here: which lists are merged
(`window_lattice.py`).

1. Batcher's odd-even merge says which minima and maxima turn two sorted lists into one. They are
   the same for any values, so that each is one array operation for all rows at once.
2. Minima and maxima on which no wanted output depends are left out.
3. Each of the others writes to an array whose content has been read for the last time, where there
   is one, so that few arrays pass through the processor's cache.

Source: Knuth, The Art of Computer Programming 3, section 5.3.4.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = list[NDArray[Any]]

Step: TypeAlias = tuple[np.ufunc, int, int]
"""The minimum or maximum of two numbered wires; the inputs have the first numbers, then the steps."""


@cache
def merge_network(left: int, right: int, count: int) -> Callable[[Arrays], Arrays]:
    """Build the network that merges two ascending lists and keeps the first `count` elements.

    Args:
        left: Length of the first list.
        right: Length of the second list.
        count: How many of the smallest elements are wanted.

    Returns:
        A function of the arrays of both lists, which have one shape and stay as they are. It
        returns `count` arrays.
    """
    inputs = left + right
    steps: list[Step] = []
    merged = _odd_even_merge(list(range(left)), list(range(left, inputs)), inputs, steps)
    outputs = merged[:count]
    last_read = dict.fromkeys(outputs, inputs + len(steps))
    for wire, (_, *operands) in reversed(list(enumerate(steps, start=inputs))):
        if wire in last_read:
            for operand in operands:
                last_read.setdefault(operand, wire)
    place = {wire: wire for wire in range(inputs)}
    places, free = inputs, []
    program: list[tuple[np.ufunc, int, int, int]] = []
    for wire, (ufunc, a, b) in enumerate(steps, start=inputs):
        if wire in last_read:
            free += [place[x] for x in (a, b) if last_read[x] == wire and place[x] >= inputs]
            place[wire] = free.pop() if free else places
            places = max(places, place[wire] + 1)
            program.append((ufunc, place[a], place[b], place[wire]))
    kept = [place[wire] for wire in outputs]

    def merge(lists: Arrays) -> Arrays:
        arrays = [*lists, *(np.empty_like(lists[0]) for _ in range(places - inputs))]
        for ufunc, a, b, out in program:
            ufunc(arrays[a], arrays[b], out=arrays[out])
        return [arrays[number] for number in kept]

    return merge


def _odd_even_merge(left: list[int], right: list[int], inputs: int, steps: list[Step]) -> list[int]:
    """Sentence 1: append the minima and maxima to the steps, and return the merged wires."""

    def ordered(a: int, b: int) -> list[int]:
        steps.extend([(np.minimum, a, b), (np.maximum, a, b)])
        return [inputs + len(steps) - 2, inputs + len(steps) - 1]

    if not left or not right:
        return left + right
    if len(left) == len(right) == 1:
        return ordered(left[0], right[0])
    odd = _odd_even_merge(left[0::2], right[0::2], inputs, steps)
    even = _odd_even_merge(left[1::2], right[1::2], inputs, steps)
    merged = [odd[0]]
    for low, high in zip(even, odd[1:], strict=False):
        merged += ordered(low, high)
    paired = min(len(even), len(odd) - 1)
    return merged + odd[1 + paired :] + even[paired:]
