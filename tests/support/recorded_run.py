"""A small run as training leaves it, made by code: three steps, two questions, four rollouts each."""

import json
from pathlib import Path

from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn, write_jsonl

QUESTIONS = ("who wrote Brastune ?", "where is Dostex based ?")


def call(operator: str = "AnswerGenerate", output: str = "Martis", **more: object) -> CallRecord:
    return CallRecord(
        operator=operator, input="who ?", output=output, seconds=0.5, prompt_tokens=70, completion_tokens=20, **more
    )


def turn(text: str = "t", **more: object) -> Turn:
    return Turn(text=text, tokens=(0, 10), think="ask", generate_seconds=0.25, operator_seconds=0.5, **more)


def trajectory(question: str = QUESTIONS[0], right: bool = True, *turns: Turn, **more: object) -> Trajectory:
    score = float(right)
    values = {
        "question": question,
        "turns": list(turns) or [turn(calls=[call()]), turn(answer="Martis" if right else "Nobody")],
        "ended_by": EndedBy.ANSWERED,
        "data_source": "world",
        "golds": ["Martis"],
        "reward": {"reward": score, "acc": score},
    }
    return Trajectory(**(values | more))


def metrics(step: int) -> str:
    data = {
        "reward/reward": step / 4,
        "reward/acc": step / 4,
        "actor/pg_clipfrac": 0.01,
        "actor/ratio_std": 0.001,
        "actor/entropy": 0.5,
        "actor/pg_loss": 0.1,
        "workflow/calls/mean": 1.0,
        "workflow/malformed": 0.1,
        "timing_s/step": 9.0,
        "val-core/world/acc/mean@1": step / 5,
        "operators/AnswerGenerate/calls": 8.0,
        "operators/AnswerGenerate/seconds_p50": 0.5,
        "operators/AnswerGenerate/cost": 0.01,
        "operators/total/cost": 0.01,
    }
    return json.dumps({"step": step, "data": data}) + "\n"


def add_step(folder: Path, step: int, part: str = "train", rollouts: int = 4) -> Path:
    """A step's file: of each question as many rollouts are right as the step's number."""
    path = folder / "trajectories" / part / f"{step}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, [trajectory(question, number < step) for question in QUESTIONS for number in range(rollouts)])
    with (folder / "metrics-001.jsonl").open("a") as file:
        file.write(metrics(step))
    return path


def make_run(folder: Path, steps: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(1, steps + 1):
        add_step(folder, step)
    return folder
