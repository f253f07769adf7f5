"""What a run shows at its end: before and after in a table, the reward curve as a picture, one trajectory to read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from workflow_r1.metrics import mean_reward
from workflow_r1.operators import OperatorConfigError
from workflow_r1.reward import core_part
from workflow_r1.runs.checkpoints import BEST, last_checkpoint
from workflow_r1.runs.drawing import draw_workflow
from workflow_r1.runs.progress import core_name, read_metrics, validation_scores
from workflow_r1.runs.run_watch import read_warnings
from workflow_r1.services.ledger import read_ledger
from workflow_r1.services.usage import usage_table
from workflow_r1.trajectory import Trajectory, read_jsonl


@dataclass(frozen=True)
class RunReport:
    """What a report is made of.

    Attributes:
        output_dir: the run's folder: metrics, checkpoints, and where the pictures go.
        trajectory_dir: where its trajectories are; None if it writes none.
        ledger: the file that a `RunLedger` keeps, which need not exist; None if it keeps none.
    """

    output_dir: Path
    trajectory_dir: Path | None
    ledger: Path | None


def mean_scores(trajectories: Iterable[Trajectory]) -> dict[str, dict[str, float]]:
    """Means by data source, and over `all`, of what was served: the reward's parts, `acc` first, and how it came about.

    A part that the reward function did not return for any of them is left out.
    """
    by_source: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.served:
            by_source[trajectory.data_source].append(trajectory)
            by_source["all"].append(trajectory)
    return {
        source: {
            **mean_reward(served),
            "calls": fmean(len(trajectory.calls) for trajectory in served),
            "malformed": fmean(trajectory.num_malformed > 0 for trajectory in served),
        }
        for source, served in sorted(by_source.items(), key=lambda item: (item[0] == "all", item[0]))
    }


def validation_steps(trajectory_dir: Path) -> list[int]:
    """The steps whose validation trajectories were kept."""
    return sorted(int(path.stem) for path in (trajectory_dir / "val").glob("*.jsonl") if path.stem.isdecimal())


def before_and_after(trajectory_dir: Path) -> Table | None:
    """The first validation against the last, by data source; None if there are not two."""
    steps = validation_steps(trajectory_dir)
    if len(steps) < 2:
        return None
    first, last = (mean_scores(read_jsonl(trajectory_dir / "val" / f"{step}.jsonl")) for step in (steps[0], steps[-1]))
    table = Table(title=f"Validation at step {steps[0]} → step {steps[-1]}", title_justify="left")
    table.add_column("questions", no_wrap=True)
    # A mean over all data sources has every part there is.
    columns = list(dict.fromkeys([*last.get("all", {}), *first.get("all", {})]))
    for name in columns:
        table.add_column(name, justify="right")
    for source in (source for source in last if source in first):
        cells = [(first[source].get(name), last[source].get(name)) for name in columns]
        table.add_row(source, *("-" if None in cell else "{:.2f} → {:.2f}".format(*cell) for cell in cells))
    return table


def draw_curve(metrics: Mapping[int, Mapping[str, float]], path: Path) -> None:
    """Training reward by step, and validation scores by data source, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rewards = {step: data["reward/reward"] for step, data in metrics.items() if "reward/reward" in data}
    sources = sorted({source for data in metrics.values() for source in validation_scores(data)})
    core = next(filter(None, map(core_name, metrics.values())), "")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(list(rewards), list(rewards.values()), color="0.6", label="training reward (batch mean)")
    for source in sources:
        points = {
            step: scores[source] for step, data in metrics.items() if source in (scores := validation_scores(data))
        }
        axes.plot(
            list(points), list(points.values()), marker="o", label=f"validation {core}, {source}".replace("$", r"\$")
        )
    axes.set_xlabel("training step")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def example(trajectory_dir: Path) -> Trajectory | None:
    """The best trajectory of the last validation, and of these the one with the most calls: it shows the most."""
    steps = validation_steps(trajectory_dir)
    if not steps:
        return None
    trajectories = read_jsonl(trajectory_dir / "val" / f"{steps[-1]}.jsonl")
    served = (trajectory for trajectory in trajectories if trajectory.served)
    return max(served, key=lambda t: (t.reward.get(core_part(t.reward), 0.0), len(t.calls)), default=None)


def print_trajectory(console: Console, trajectory: Trajectory) -> None:
    """One trajectory in readable form."""
    console.print(Text.assemble(("Question", "bold"), f" {trajectory.question}"))
    for number, turn in enumerate(trajectory.turns, start=1):
        console.print(Text.assemble((f"  {number} think", "dim"), f"  {turn.think}"))
        for call in turn.calls:
            console.print(Text.assemble((f"    {call.operator}", "cyan"), f" {call.input}"))
            output = call.output.replace("\n", "\n      ")
            console.print(Text.assemble(("    →", "dim"), f" {output}"))
        if turn.error:
            console.print(Text.assemble(("    malformed", "red"), f" {turn.error}"))
        if turn.reward:
            console.print(Text(f"    earned {turn.reward:+.2f}", "dim"))
        if turn.answer is not None:
            console.print(Text.assemble(("  answer", "bold"), f"   {turn.answer}"))
    if trajectory.answer is None:
        console.print(f"  no answer: {trajectory.ended_by.replace('_', ' ')}")
    if trajectory.golds:
        console.print(Text(f"  gold     {' | '.join(trajectory.golds)}", "dim"))


def print_report(console: Console, report: RunReport) -> None:
    """Everything above, what the operators took, and where to find what the run left."""
    curve, workflow = report.output_dir / "reward_curve.png", report.output_dir / "workflow.png"
    draw_curve(read_metrics(report.output_dir), curve)
    trajectory = None
    if report.trajectory_dir is not None:
        if (table := before_and_after(report.trajectory_dir)) is not None:
            console.print(table)
        if (trajectory := example(report.trajectory_dir)) is not None:
            print_trajectory(console, trajectory)
            draw_workflow(trajectory, workflow)
    if report.ledger is not None:
        _print_usage(console, report.ledger)
    for warned in read_warnings(report.output_dir):
        console.print(str(warned), style="yellow", markup=False)
    checkpoint, best = last_checkpoint(report.output_dir), last_checkpoint(report.output_dir / BEST)
    console.print(f"checkpoint    {checkpoint / 'actor' if checkpoint else 'none saved'}")
    if best:
        console.print(f"best          {best / 'actor'}")
    console.print(f"trajectories  {report.trajectory_dir or 'not kept'}")
    console.print(f"curve         {curve}")
    if trajectory is not None:
        console.print(f"workflow      {workflow}")


def _print_usage(console: Console, ledger: Path) -> None:
    try:
        spent = read_ledger(ledger)
    except OperatorConfigError as error:
        console.print(str(error), markup=False)
        return
    if spent.operators:
        console.print(Text("\nOperator calls of the run", "bold"), usage_table(spent), sep="\n")
