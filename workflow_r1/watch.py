"""Whether a training run still goes well: conditions on its metrics, which say in a sentence what has gone wrong."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

WINDOW = 5
"""Steps over which a condition takes its means: the last ones, or as many as there are."""

_MANY = 20  # steps, of the gradient's running median


@dataclass(frozen=True)
class Condition:
    """Something that goes wrong in runs.

    Attributes:
        metric: the one that shows it.
        meaning: what it is, for a sentence.
        judge: of the metric's values, a step each, and the limit: their part of the sentence, or None if all is well.
    """

    metric: str
    meaning: str
    judge: Callable[[Sequence[float], float], str | None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)  # where `fmean` raises, of numbers whose sum is none, this is infinite


def _recent(values: Sequence[float]) -> str:
    return f"is {_mean(values[-WINDOW:]):.3g} over the last {min(len(values), WINDOW)} step(s)"


def _is_above(values: Sequence[float], limit: float) -> str | None:
    return f"{_recent(values)}, above {limit:g}" if _mean(values[-WINDOW:]) > limit else None


def _is_below(values: Sequence[float], limit: float) -> str | None:
    return f"{_recent(values)}, below {limit:g}" if _mean(values[-WINDOW:]) < limit else None


def _has_dropped(values: Sequence[float], limit: float) -> str | None:
    means = [_mean(values[end - WINDOW : end]) for end in range(WINDOW, len(values) + 1)]
    if not means or max(means) - means[-1] <= limit:
        return None
    return f"{_recent(values)}, more than {limit:g} below its best of {max(means):.3g}"


def _is_stuck(values: Sequence[float], limit: float) -> str | None:
    last = values[-int(limit) :]
    if len(last) < limit or max(last) > min(values):
        return None
    return f"has been {values[-1]:.3g}, its lowest, for {len(last)} steps"


def _has_collapsed(values: Sequence[float], limit: float) -> str | None:
    start = _mean(values[:WINDOW])
    if len(values) <= WINDOW or _mean(values[-WINDOW:]) >= limit * start:
        return None
    return f"{_recent(values)}, less than {limit:g} times the {start:.3g} of the run's first steps"


def _has_exploded(values: Sequence[float], limit: float) -> str | None:
    start = _mean(values[:WINDOW])
    if len(values) <= WINDOW or _mean(values[-WINDOW:]) <= limit * start:
        return None
    return f"{_recent(values)}, more than {limit:g} times the {start:.3g} of the run's first steps"


def _has_jumped(values: Sequence[float], limit: float) -> str | None:
    before = values[-1 - _MANY : -1]
    if len(before) < WINDOW or not 0 < limit * median(before) < values[-1]:
        return None
    return f"is {values[-1]:.3g}, more than {limit:g} times its median of {median(before):.3g}"


CONDITIONS = {
    "reward_drop": Condition("reward/reward", "the reward falls", _has_dropped),
    "reward_stuck": Condition("reward/reward", "the reward does not leave its worst value", _is_stuck),
    "entropy_collapse": Condition("actor/entropy", "the policy no longer explores", _has_collapsed),
    "entropy_explosion": Condition("actor/entropy", "the policy becomes random", _has_exploded),
    "malformed": Condition("workflow/malformed", "many trajectories break the format", _is_above),
    "unserved": Condition("workflow/unscored", "the endpoints do not serve many trajectories", _is_above),
    "sample_size": Condition("mismatch/eff_sample_size", "a few turns outweigh the others", _is_below),
    "gradient_norm": Condition("actor/grad_norm", "the gradient jumps", _has_jumped),
    "mismatch": Condition("training/rollout_probs_diff_mean", "the sampler is not the trained policy", _is_above),
    "clipped": Condition("actor/pg_clipfrac", "much of what is learned from is clipped", _is_above),
}


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise ValueError(f"{', '.join(unknown)} is no condition: take some of {', '.join(CONDITIONS)}")
    return names


class WatchSettings(BaseModel):
    """The limit of every condition, null switching it off, and what comes of it.

    A mean is over the last five steps, or as many as there are. A metric that a step does not have is not judged; one
    that is no finite number meets its conditions at once.
    """

    model_config = ConfigDict(title="Watch", extra="forbid", frozen=True, use_attribute_docstrings=True)

    reward_drop: float | None = Field(default=0.3, gt=0)
    """How far the mean reward may fall below the best such mean of the run, in units of the reward."""

    reward_stuck: int | None = Field(default=5, ge=2)
    """For how many steps in a row the reward may be exactly the lowest of the run."""

    entropy_collapse: float | None = Field(default=0.05, gt=0, lt=1)
    """The least mean entropy, as a fraction of the mean of the run's first five steps."""

    entropy_explosion: float | None = Field(default=3.0, gt=1)
    """The largest mean entropy, as a multiple of that."""

    malformed: float | None = Field(default=0.5, ge=0, lt=1)
    """The largest mean fraction of trajectories with a malformed turn."""

    unserved: float | None = Field(default=0.25, ge=0, lt=1)
    """The largest mean fraction of trajectories that an endpoint did not serve."""

    sample_size: float | None = Field(default=0.5, gt=0, le=1)
    """The least mean effective sample size of the turns' importance weights, as a fraction of the turns."""

    gradient_norm: float | None = Field(default=10.0, gt=1)
    """The largest gradient norm of one step, as a multiple of its median over the twenty steps before."""

    mismatch: float | None = Field(default=0.05, gt=0)
    """The largest mean difference between the trainer's and the sampler's probabilities of the sampled tokens."""

    clipped: float | None = Field(default=0.5, ge=0, lt=1)
    """The largest mean fraction of turns that the clip leaves out."""

    stop_on: Annotated[tuple[str, ...], AfterValidator(_known)] = ()
    """The conditions that stop the run, without saving the step that met them; the others warn."""

    keep_best: bool = True
    """Keep the checkpoint with the best validation in `best`, beside the newest; one is saved for it if need be."""

    @model_validator(mode="after")
    def _stops_on_what_is_judged(self) -> "WatchSettings":
        if off := [name for name in self.stop_on if getattr(self, name) is None]:
            raise ValueError(f"stop_on names {', '.join(off)}, which is switched off: give it a limit")
        return self


class Watch:
    """Judges a run's steps.

    Args:
        history: the metrics of the steps before, in order, where a run is resumed.
    """

    def __init__(self, settings: WatchSettings, history: Iterable[Mapping[str, float]] = ()):
        limits = {name: getattr(settings, name) for name in CONDITIONS}
        self._limits: dict[str, float] = {name: limit for name, limit in limits.items() if limit is not None}
        self._values: dict[str, list[float]] = defaultdict(list)
        latest: Mapping[str, float] = {}
        for latest in history:
            self._add(latest)
        self._met = self._judge(latest)

    def judge(self, metrics: Mapping[str, float]) -> tuple[dict[str, str | None], list[str]]:
        """Judge the next step.

        Returns:
            for every condition that could be judged the sentence that says what is wrong, None if all is well; and the
            names of those that the step before had not met.
        """
        before = self._met
        self._add(metrics)
        self._met = self._judge(metrics)
        return self._met, [name for name, sentence in self._met.items() if sentence and not before.get(name)]

    def _add(self, metrics: Mapping[str, float]) -> None:
        for metric in {CONDITIONS[name].metric for name in self._limits}:
            if math.isfinite(value := metrics.get(metric, math.nan)):
                self._values[metric].append(value)

    def _judge(self, metrics: Mapping[str, float]) -> dict[str, str | None]:
        met: dict[str, str | None] = {}
        for name, limit in self._limits.items():
            condition = CONDITIONS[name]
            if (value := metrics.get(condition.metric)) is None:
                continue
            finite = math.isfinite(value)
            found = condition.judge(self._values[condition.metric], limit) if finite else f"is {value}"
            met[name] = found and (
                f"{condition.meaning}: {condition.metric} {found} (workflow_r1.watch.{name}; docs/turns.md#watch)."
            )
        return met
