"""Credit: what each turn is worth, of what the trajectories of a group earned.

Turn k of a trajectory's K earned r_k, the last one the outcome besides. With R_k = Σ_{j≥k} γ^{j−k} r_j, a turn's
discounted return, and N(·), what is centred on the mean of those that it is compared with and divided by their standard
deviation, the advantage of turn k is

    outcome       N(Σ_j r_j)                          of responses: GRPO (arXiv 2402.03300)
    turn_rewards  N(r_K) + N(r_k)                     r_k, in a last turn left out, with the group's turns before their
                                                      last: MT-GRPO (arXiv 2505.11821)
    discounted    N(R_k)                              with the turns of that number: GTPO (arXiv 2511.14846)
    zero_sum      N(Σ_j r_j) + β (c_k − mean_j c_j)   c_k is r_k, and 0 in the last turn: prime-rl's turn credit
    anchors       N(Σ_j r_j) + ω N(R_k)               with the turns of equal state: GiGPO (arXiv 2505.10978)

Turns that a later mask took away earned what they earned, but are compared with nothing and get 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Credit:
    """An estimator and its constants.

    Attributes:
        name: one of `ESTIMATORS`.
        discount: γ of `discounted` and `anchors`, from 0 to 1.
        weight: β of `zero_sum` and ω of `anchors`, at least 0.
        information_gain: what the trainer adds to a turn's reward for each nat by which it raised the gold answer's
            mean log-probability, at least 0.

    Raises:
        ValueError: naming the setting that cannot be, and what it may be.
    """

    name: str = "outcome"
    discount: float = 1.0
    weight: float = 1.0
    information_gain: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ESTIMATORS:
            raise ValueError(f"gsspo_credit={self.name} is not known: take {', '.join(ESTIMATORS)}.")
        if not (_is_number(self.discount) and 0 <= self.discount <= 1):
            raise ValueError(f"gsspo_discount={self.discount} has to be a number from 0 to 1: set it to one.")
        weights = {"gsspo_credit_weight": self.weight, "gsspo_information_gain": self.information_gain}
        for name, value in weights.items():
            if not (_is_number(value) and 0 <= value < float("inf")):
                raise ValueError(f"{name}={value} has to be a number of at least 0: set it to one.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Credit":
        """From what `SETTINGS` names of verl's algorithm configuration; null is the default."""
        given: dict[str, Any] = {field: options.get(name) for name, field in SETTINGS.items()}
        return cls(**{field: value for field, value in given.items() if value is not None})


@dataclass(frozen=True)
class Turns:
    """B responses with up to K turns each; what is behind a response's last turn is not trained on, and earned 0."""

    rewards: torch.Tensor  # (B, K) r_k
    trained: torch.Tensor  # (B, K) bool
    last: torch.Tensor  # (B,) int64, the last turn's place
    group: torch.Tensor  # (B,) int64, from 0
    states: torch.Tensor | None  # (B, K) int64, from 0: equal where turns start from the same
    compare: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # N: `compare_in_groups`

    @property
    def number(self) -> torch.Tensor:
        """(K,) 0, 1, ..."""
        return torch.arange(self.rewards.shape[1], device=self.rewards.device)

    @property
    def before_last(self) -> torch.Tensor:
        """(B, K) bool."""
        return self.number < self.last[:, None]

    def returns(self, discount: float) -> torch.Tensor:
        """(B, K) R_k, summed in double precision: rounding must not make equal ones differ."""
        distance = self.number[:, None] - self.number
        powers = discount ** distance.clamp(min=0).double()
        return (self.rewards.double() @ powers.where(distance >= 0, 0)).to(self.rewards.dtype)

    def among_responses(self, earned: torch.Tensor) -> torch.Tensor:
        """(B,) -> (B, 1) N."""
        return self.compare(earned, self.trained.any(dim=1), self.group)[:, None]

    def among_turns(self, earned: torch.Tensor, trained: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """(B, K) -> (B, K) N; the groups too are (B, K), or what broadcasts to it."""
        return self.compare(earned.flatten(), trained.flatten(), groups.expand_as(earned).flatten()).view_as(earned)


def _outcome(turns: Turns, credit: Credit) -> torch.Tensor:
    return turns.among_responses(turns.rewards.sum(dim=1)).expand_as(turns.rewards)


def _turn_rewards(turns: Turns, credit: Credit) -> torch.Tensor:
    last = turns.rewards.gather(1, turns.last[:, None])[:, 0]
    own = turns.among_turns(turns.rewards, turns.trained & turns.before_last, turns.group[:, None])
    return turns.among_responses(last) + own


def _discounted(turns: Turns, credit: Credit) -> torch.Tensor:
    same_number = turns.group[:, None] * len(turns.number) + turns.number
    return turns.among_turns(turns.returns(credit.discount), turns.trained, same_number)


def _zero_sum(turns: Turns, credit: Credit) -> torch.Tensor:
    own = turns.rewards.where(turns.trained & turns.before_last, 0)
    mean = own.sum(dim=1, keepdim=True) / turns.trained.sum(dim=1, keepdim=True).clamp(min=1)
    return _outcome(turns, credit) + credit.weight * (own - mean)


def _anchors(turns: Turns, credit: Credit) -> torch.Tensor:
    if turns.states is None:
        raise ValueError(
            "gsspo_credit=anchors compares turns by the state that they start from, which verl's V1 trainer has of "
            "what workflow_r1_agent_loop rolls out: train with both, or take another gsspo_credit."
        )
    shared = turns.states.flatten().bincount()[turns.states] > 1
    among_equal = turns.among_turns(turns.returns(credit.discount), turns.trained & shared, turns.states)
    return _outcome(turns, credit) + credit.weight * among_equal


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


ESTIMATORS: dict[str, Callable[[Turns, Credit], torch.Tensor]] = {
    "outcome": _outcome,
    "turn_rewards": _turn_rewards,
    "discounted": _discounted,
    "zero_sum": _zero_sum,
    "anchors": _anchors,
}
"""By name: (B, K) advantages of turns. What they hold where nothing is trained on is not used."""

SETTINGS = {
    "gsspo_credit": "name",
    "gsspo_discount": "discount",
    "gsspo_credit_weight": "weight",
    "gsspo_information_gain": "information_gain",
}
"""Under `algorithm`, and their fields of `Credit`."""

OUTCOME = Credit()
