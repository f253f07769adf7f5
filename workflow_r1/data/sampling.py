"""Choosing rows by seed: every question has a rank that only the seed and its text decide.

So the choice does not depend on the order of the input, a smaller sample is the beginning of a larger one, and
choosing n of many rows holds n of them.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal

from workflow_r1.data.examples import Example

Mix = Literal["balanced", "natural"]
Ranked = tuple[int, int, Example]  # rank, position in the input, example


def rank(example: Example, seed: int) -> int:
    """A number in [0, 2^64) that is as good as random."""
    text = f"{seed}\n{example.data_source}\n{example.question}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def lowest_ranked(examples: Iterable[Example], size: int | None, seed: int) -> dict[str, list[Ranked]]:
    """Of each data source the `size` examples that rank lowest, in rank order; None keeps all."""
    heaps: dict[str, list[tuple[int, int, Example]]] = {}
    for position, example in enumerate(examples):
        heap = heaps.setdefault(example.data_source, [])
        # Negated, so that the heap's first entry is the one to give up; positions differ, so no Example is compared.
        entry = (-rank(example, seed), -position, example)
        if size is None or len(heap) < size:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    return {
        source: sorted((-negated, -position, example) for negated, position, example in heap)
        for source, heap in sorted(heaps.items())
    }


def draw(ranked: Mapping[str, Sequence[Ranked]], size: int, mix: Mix) -> list[Ranked]:
    """Choose `size` examples, or all where there are fewer, in rank order.

    Args:
        mix: `natural` takes every example with the same probability; `balanced` takes as many of each data source,
            and where one runs out, more of the others.
    """
    if mix == "balanced":
        shares = _equal_shares({source: len(rows) for source, rows in ranked.items()}, size)
        return sorted(row for source, rows in ranked.items() for row in rows[: shares[source]])
    return sorted(row for rows in ranked.values() for row in rows)[:size]


def _equal_shares(available: Mapping[str, int], size: int) -> dict[str, int]:
    shares: dict[str, int] = {}
    for source, count in sorted(available.items(), key=lambda item: (item[1], item[0])):
        shares[source] = min(count, size // (len(available) - len(shares)))
        size -= shares[source]
    return shares
