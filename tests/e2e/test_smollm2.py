"""SmolLM2-135M-Instruct, a pretrained model: trained on real questions, evaluated, asked, and serving operators.

It does not follow the protocol by itself, so all its answers earn the same and only the entropy bonus moves it: what is
shown is that a model of the usual shape, with 49,152 tokens and tied embeddings, goes through every part.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Run

from workflow_r1.evaluation.record import Record
from workflow_r1.evaluation.serving import MODEL_NAME, machine_environment, served_checkpoint
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.runs.smollm2 import smollm2
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME as SIMULATED
from workflow_r1.world.simulated_llm import SimulatedLLM
from workflow_r1.world.world import World

SOURCE = ROOT.parent / "shared" / "data" / "nq_hotpotqa"
PROMPT = "Write <think>a thought</think> and <tool>AnswerGenerate: a question</tool> or <answer>an answer</answer>."
STEPS = 2


def workflow_r1(*arguments: object, code: int = 0, **environ: str) -> str:
    command = [sys.executable, "-m", "workflow_r1.cli", *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def operators_at(url: str, model: str, key: str) -> dict[str, str]:
    return {"OPERATOR_BASE_URL": url, "OPERATOR_MODEL_NAME": model, "OPERATOR_API_KEY": key}


@pytest.fixture(scope="module")
def questions(run: Run) -> Path:
    if not SOURCE.is_dir():
        pytest.skip(f"needs the NQ and HotpotQA sample in {SOURCE}")
    (run.folder / "prompt.jinja").write_text(PROMPT)
    folder = run.folder / "questions"
    workflow_r1("prepare", "--source", SOURCE, "--local-dir", folder, "--num-train", 8, "--num-test", 2)
    return folder


@pytest.fixture(scope="module")
def trained(run: Run, questions: Path) -> Path:
    """The folder of a run of two steps, which has been evaluated in its folder `evaluation`."""
    try:
        model = smollm2()
    except LaunchError as error:
        pytest.skip(str(error))
    with running_server(SimulatedEndpoint(SimulatedLLM(World.build(1)))) as server:
        run.start(
            f"actor_rollout_ref.model.path={model}",
            f"data.train_files={questions / 'train.parquet'}",
            f"data.val_files={questions / 'test.parquet'}",
            f"workflow_r1.prompt={run.folder / 'prompt.jinja'}",
            "workflow_r1.pool.names=[AnswerGenerate]",
            "data.train_batch_size=2",
            "data.max_response_length=128",
            "actor_rollout_ref.actor.ppo_mini_batch_size=2",
            "actor_rollout_ref.actor.entropy_coeff=0.01",
            "actor_rollout_ref.rollout.n=2",
            f"trainer.total_training_steps={STEPS}",
            f"trainer.save_freq={STEPS}",
            "trainer.test_freq=-1",
            "trainer.val_before_train=false",
            f"workflow_r1.operators.base_url={server.base_url}",
            f"workflow_r1.operators.model={SIMULATED}",
            "workflow_r1.operators.api_key=none",
            recipe="workflow_r1_smollm2",
        ).finish(code=0)
        workflow_r1(
            *("eval", "--benchmark", questions / "test.parquet", "--policy", run.folder),
            *("--max-response-tokens", 64, "--output", run.folder / "evaluation"),
            **operators_at(server.base_url, SIMULATED, "none"),
        )
    return run.folder


@pytest.fixture(scope="module")
def served(trained: Path) -> dict[str, str]:
    """What commands showed while vLLM served the checkpoint to them, as the operators' model and as the policy."""
    merged = trained / f"global_step_{STEPS}" / "merged"

    async def show() -> dict[str, str]:
        async with served_checkpoint(str(merged), trained / "serving.log", machine_environment()) as server:
            operators = operators_at(server.base_url, MODEL_NAME, server.api_key)
            call = ["operators", "call", "AnswerGenerate", "What is the capital of France?"]
            ask = ["ask", "Who wrote Hamlet?", "--json", "--policy", server.base_url, "--max-response-tokens", 64]
            return {
                "check": await asyncio.to_thread(workflow_r1, "operators", "check", **operators),
                "call": await asyncio.to_thread(workflow_r1, *call, **operators),
                "ask": await asyncio.to_thread(workflow_r1, *ask, code=1, **operators, POLICY_API_KEY=server.api_key),
            }

    return asyncio.run(show())


def test_two_steps_are_taken_and_the_weights_reach_the_sampler(run: Run, trained: Path) -> None:
    assert list(run.metrics) == [1, 2]
    for data in run.metrics.values():
        assert data["training/rollout_probs_diff_mean"] < 1e-5
        assert data["actor/grad_norm"] > 0


def test_it_writes_text_on_real_questions(run: Run, trained: Path) -> None:
    trajectories = run.trajectories("train", STEPS)
    assert len(trajectories) == 2 * 2
    assert all(t.golds and t.turns and t.turns[0].text.strip() for t in trajectories)


def test_its_checkpoint_is_evaluated(trained: Path) -> None:
    lines = (trained / "evaluation" / "results.jsonl").read_text().splitlines()
    records = [Record.model_validate_json(line) for line in lines]
    assert len(records) == 2
    assert all(record.error is None and record.completion_tokens > 0 for record in records)
    assert (trained / f"global_step_{STEPS}" / "merged" / "model.safetensors").is_file()


def test_its_checkpoint_is_asked(served: dict[str, str]) -> None:
    shown = json.loads(served["ask"])
    assert shown["turns"][0]["text"].strip()
    assert shown["policy_completion_tokens"] > 0


def test_it_is_an_operators_model(served: dict[str, str]) -> None:
    assert f"{MODEL_NAME} answers in" in served["check"]
    assert served["call"].strip()
