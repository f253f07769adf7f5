"""A short line per training step, read from verl's metrics file as it grows."""

import json
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

from rich.console import Console

from workflow_r1.records import read_lines
from workflow_r1.reward import acc_first
from workflow_r1.runs.run_watch import Warned

logger = logging.getLogger(__name__)

_PHASES = (  # the newest of these in verl's log says what a long start is busy with
    (b"ray init kwargs", "starting Ray"),
    (b"TaskRunnerV1", "loading the trainer"),
    (b"FSDP", "placing the policy"),
    (b"vLLMHttpServer", "starting vLLM"),
    (b"Creating file logger", "first validation: vLLM compiles its sampler"),
)
_POLL_SECONDS = 0.5
_REWARD = "reward/"  # begins the names of `workflow_metrics` that are parts of the reward
# verl's core metric is `acc` where the reward has one, else `reward`. A source may hold slashes itself.
_VALIDATION = re.compile(r"val-core/(?P<source>.*)/(?P<part>\w+)/mean@\d+", re.DOTALL)


def parse_metrics(line: bytes) -> tuple[int, dict[str, float]]:
    """`(step, metrics)` of a line of verl's metrics file; what is no number is no metric.

    Raises:
        ValueError: the line is something else.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(step := record.get("step"), int):
        raise ValueError("no step")
    if not isinstance(data := record.get("data"), dict):
        raise ValueError("no metrics")
    return step, {name: value for name, value in data.items() if isinstance(value, int | float)}


def read_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Metrics by step from every `metrics*.jsonl` of a run; a resumed run has one file for each start."""
    merged: dict[int, dict[str, float]] = defaultdict(dict)
    for path in sorted(folder.glob("metrics*.jsonl")):
        for step, data in read_lines(path, parse_metrics):
            merged[step].update(data)
    return dict(sorted(merged.items()))


class Tail:
    """Reads the complete lines that a file gains.

    Args:
        start: the byte to begin at.
    """

    def __init__(self, path: Path, start: int = 0):
        self._path, self._position = path, start

    def new_lines(self) -> Iterator[bytes]:
        """Every line written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield line


class MetricsTail:
    """Reads the records that a JSONL metrics file gains."""

    def __init__(self, path: Path):
        self._path, self._tail = path, Tail(path)

    def new_records(self) -> Iterator[tuple[int, dict[str, float]]]:
        """`(step, metrics)` of every line written since the last call."""
        for line in self._tail.new_lines():
            try:
                yield parse_metrics(line)
            except (ValueError, RecursionError):
                logger.warning("A broken line of %s is left out: %.60r", self._path, line)


class StartPhases:
    """What a long start is busy with, from verl's log as it grows."""

    def __init__(self, log: Path, start: int):
        self._tail, self._reached = Tail(log, start), -1

    def newest(self) -> str:
        for line in self._tail.new_lines():
            for number, (mark, _) in enumerate(_PHASES):
                if number > self._reached and mark in line:
                    self._reached = number
        return _PHASES[self._reached][1] if self._reached >= 0 else "starting"


def follow(
    console: Console,
    metrics: Path,
    log: Path,
    log_start: int,
    watch: Path,
    total_steps: int | None,
    running: Callable[[], bool],
) -> list[tuple[int, dict[str, float]]]:
    """Print progress until `running` says no.

    Args:
        metrics: verl's metrics file of this start.
        log: verl's log, to which a resumed run appends; this start's part begins at byte `log_start`.
        watch: the file of `RunWatch`; what is in it already has been shown.
        total_steps: None where it is not known.

    Returns:
        The records of this start.
    """
    tail, phases, records = MetricsTail(metrics), StartPhases(log, log_start), []
    warnings = Tail(watch, watch.stat().st_size if watch.exists() else 0)
    started = time.monotonic()
    with console.status("starting") as status:
        alive = True
        while alive:
            alive = running()
            for warned in map(Warned.model_validate_json, warnings.new_lines()):
                console.print(str(warned), style="yellow", markup=False)
            for step, data in tail.new_records():
                records.append((step, data))
                for line in describe(step, total_steps, data):
                    console.print(line, markup=False)
            minutes, seconds = divmod(int(time.monotonic() - started), 60)
            phase = "training" if records else phases.newest()
            status.update(f"{phase} ({minutes}:{seconds:02d})")
            if alive:
                time.sleep(_POLL_SECONDS)
    return records


def describe(step: int, total_steps: int | None, data: Mapping[str, float]) -> Iterator[str]:
    """The lines for one record of metrics: the step, and the validation where there was one."""
    if "actor/pg_loss" in data:
        parts = [
            *((part, data[f"{_REWARD}{part}"], "{:.2f}") for part in reward_parts(data)),
            ("calls", data.get("workflow/calls/mean"), "{:.1f}"),
            ("malformed", data.get("workflow/malformed"), "{:.0%}"),
            ("clipped", data.get("actor/pg_clipfrac"), "{:.1%}"),
            ("not served", data.get("workflow/unscored") or None, "{:.0%}"),
            ("groups filtered", data.get("workflow/groups_filtered") or None, "{:.0f}"),
            ("masked", data.get("workflow/masked") or None, "{:.0%}"),
            ("rollouts lost", data.get("workflow/rollouts_lost") or None, "{:.0f}"),
            ("kl", data.get("actor/ppo_kl"), "{:+.4f}"),
            ("", data.get("timing_s/step"), "{:.1f} s"),
        ]
        shown = "  ".join(f"{name} {form.format(value)}".strip() for name, value, form in parts if value is not None)
        yield f"step {step:>3}{f'/{total_steps}' if total_steps else ''}  {shown}"
    lost_rollouts = data.get("workflow/validation_rollouts_lost", 0.0)
    if (scores := validation_scores(data)) or lost_rollouts:
        shown = "  ".join(f"{source} {score:.2f}" for source, score in sorted(scores.items())) or "not measured"
        if lost_rollouts:
            shown += f"  ({lost_rollouts:.0f} rollouts lost to exceptions{', counted as wrong' if scores else ''})"
        if unscored := data.get("workflow/validation_unscored"):
            shown += f"  ({unscored:.0%} not served, counted as 0)"
        yield f"validation at step {step}: " + f"{core_name(data)} {shown}".strip()


def reward_parts(data: Mapping[str, float]) -> list[str]:
    """The names of the reward's parts among metrics, `acc` first."""
    return acc_first(key.removeprefix(_REWARD) for key in data if key.startswith(_REWARD))


def validation_scores(data: Mapping[str, float]) -> dict[str, float]:
    """verl's core validation metric by data source: the mean of `acc`, or of the reward where it has none."""
    return {found["source"]: value for key, value in data.items() if (found := _VALIDATION.fullmatch(key))}


def validation_score(data: Mapping[str, float]) -> float | None:
    """The mean of `validation_scores` over the data sources; None where none was measured."""
    scores = [score for score in validation_scores(data).values() if math.isfinite(score)]
    return fmean(scores) if scores else None


def core_name(data: Mapping[str, float]) -> str:
    """What `validation_scores` are scores of; empty where there are none."""
    return "/".join(sorted({found["part"] for key in data if (found := _VALIDATION.fullmatch(key))}))
