"""Rollouts of several outputs, such as where an agent loop compacts its context: each is one trajectory again.

verl's transfer queue has a row for each output, with the key `{uid}_{rollout}_{output}`, and the rollout's reward is on
every one of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rollouts:
    """Which rows are the outputs of one rollout, for R rollouts of at most M outputs among B rows.

    Attributes:
        rows: for each rollout the numbers of its rows, in the order in which they were written.
    """

    rows: list[list[int]]

    @classmethod
    def of(cls, keys: Sequence[str]) -> "Rollouts":
        """From the keys of the rows."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, key in enumerate(keys):
            rollout, output = key.rsplit("_", 1)
            found[rollout].append((int(output), row))
        return cls([[row for _, row in sorted(outputs)] for outputs in found.values()])

    @property
    def single(self) -> bool:
        """Whether each has one output."""
        return all(len(outputs) == 1 for outputs in self.rows)

    @property
    def last(self) -> list[int]:
        """(R,): the row of each one's last output."""
        return [outputs[-1] for outputs in self.rows]

    def join(self, values: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (R, M·(T+1)): a rollout's outputs one after the other, a zero after each: no turn spans two."""
        count, length = values.shape
        padded = values.new_zeros(count + 1, length + 1)  # the last row stands for an output that is not there
        padded[:count, :length] = values
        return padded[self._index(count, values.device)].flatten(1)

    def split(self, joined: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The inverse of `join`: (R, M·(T+1)) -> (B, T), of the shape of `like`."""
        index = self._index(len(like), joined.device)
        rows = torch.zeros_like(like, dtype=joined.dtype)
        there = index < len(like)
        rows[index[there]] = joined.unflatten(1, (index.shape[1], -1))[..., : like.shape[1]][there]
        return rows

    def _index(self, absent: int, device: torch.device) -> torch.Tensor:
        """(R, M): the rows, and `absent` where a rollout has fewer outputs."""
        most = max(len(outputs) for outputs in self.rows)
        filled = [outputs + [absent] * (most - len(outputs)) for outputs in self.rows]
        return torch.tensor(filled, device=device)
