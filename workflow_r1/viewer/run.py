"""What a run wrote beside its trajectories: metrics, its configuration, where it stopped and why."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from workflow_r1.runs.checkpoints import CONFIG_FILE, last_step
from workflow_r1.runs.progress import validation_scores
from workflow_r1.runs.report import read_metrics
from workflow_r1.runs.run_watch import WATCH_FILE, Warned, read_warnings
from workflow_r1.runs.stop import STOP_FILE, Stop, read_stop
from workflow_r1.viewer.charts import Chart, chart
from workflow_r1.viewer.masking import masked
from workflow_r1.viewer.sources import Source

_LARGEST_FILE = 5_000_000  # bytes of a configuration
Metrics = Mapping[int, Mapping[str, float]]

_CURVES = {
    "Reward and its parts": "reward/",
    "Clip fraction": ("actor/pg_clipfrac", "actor/pg_clipfrac_low", "actor/pg_clipfrac_high"),
    "Spread of the ratio": ("actor/ratio_std",),
    "Entropy": ("actor/entropy",),
    "Calls and turns a question": ("workflow/calls/mean", "workflow/turns/mean"),
    "Malformed and not served": ("workflow/malformed", "workflow/unscored", "workflow/failed_calls/mean"),
    "How trajectories ended": "workflow/ended_by/",
    "Mismatch of sampler and trainer": ("training/rollout_probs_diff_mean", "rollout_corr/kl"),
    "KL and gradient norm": ("actor/ppo_kl", "actor/kl_loss", "actor/grad_norm"),
    "Seconds": ("timing_s/step", "timing_s/gen", "timing_s/old_log_prob", "timing_s/update_actor"),
    "Operators' cost in US$": ("operators/total/cost",),
}
"""What is drawn of verl's metrics: all names that begin so, or those named."""
_OPERATORS = {
    "Calls": "calls",
    "Failed calls": "failed",
    "Rejected calls": "rejected",
    "Prompt tokens": "prompt_tokens",
    "Completion tokens": "completion_tokens",
    "Seconds, median": "seconds_p50",
    "Seconds, 95th percentile": "seconds_p95",
    "US$": "cost",
}


def metrics_of(source: Source) -> Metrics:
    """Metrics by step; empty for what is no run."""
    files = list(source.path.glob("metrics*.jsonl")) if source.path.is_dir() else []
    if not all(map(source.inside, files)):
        return {}
    return _metrics(source.path, tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@lru_cache(maxsize=4)
def _metrics(folder: Path, state: tuple[object, ...]) -> Metrics:
    """Read anew where `state` is another, and what is broken said but once."""
    return read_metrics(folder)


def curves(metrics: Metrics) -> list[Chart]:
    """The charts of a run, without those that nothing was measured for."""
    validation: dict[str, dict[int, float]] = {}
    for step, data in metrics.items():
        for name, score in validation_scores(data).items():
            validation.setdefault(name, {})[step] = score
    charts = [chart("Validation score by data source", validation)]
    for title, names in _CURVES.items():
        prefix = names if isinstance(names, str) else ""
        found = dict.fromkeys(
            name for data in metrics.values() for name in data if (prefix and name.startswith(prefix)) or name in names
        )
        charts.append(chart(title, {name.removeprefix(prefix): _values(metrics, name) for name in found}))
    return [one for one in charts if one is not None]


def operator_curves(metrics: Metrics) -> list[Chart]:
    """The charts of what each operator did and took."""
    names = dict.fromkeys(
        parts[1]
        for data in metrics.values()
        for name in data
        if len(parts := name.split("/")) == 3 and parts[0] == "operators" and parts[1] != "total"
    )
    charts = [
        chart(title, {name: _values(metrics, f"operators/{name}/{measure}") for name in names})
        for title, measure in _OPERATORS.items()
    ]
    return [one for one in charts if one is not None]


def _values(metrics: Metrics, name: str) -> dict[int, float]:
    values = {step: data[name] for step, data in metrics.items() if name in data}
    unpriced = name.endswith("/cost") and not any(values.values())  # as it is where no prices are set
    return {} if unpriced else values


def warnings_of(source: Source) -> list[Warned]:
    """What its watch has warned of."""
    return read_warnings(source.path) if source.inside(source.path / WATCH_FILE) else []


def stop_of(source: Source) -> Stop | None:
    """Why its trainer ended before its last step, as far as it said."""
    return read_stop(source.path) if source.inside(source.path / STOP_FILE) else None


def configuration(source: Source) -> dict[str, str]:
    """What is known of its settings as YAML, by what they are; keys are not shown."""
    if not source.path.is_dir():
        return {}
    files = {
        "Overrides": source.path / "hydra/.hydra/overrides.yaml",
        "Configuration of the last checkpoint": source.path / f"global_step_{last_step(source.path)}" / CONFIG_FILE,
        "Settings of the evaluation": source.path / "run.json",
    }
    shown = {title: _yaml(path) for title, path in files.items() if path.is_file() and source.inside(path)}
    return {title: text for title, text in shown.items() if text}


def _yaml(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return ""
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(path.read_text(encoding="utf-8", errors="replace"), loader)
        return yaml.safe_dump(masked(content), sort_keys=False, allow_unicode=True)
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        return f"{path.name} cannot be read: {error}"
