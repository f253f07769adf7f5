"""Real NQ and HotpotQA questions through verl and vLLM: rolled out, scored, and one GSsPO step taken on them.

The tiny policy cannot read them and the simulated operators do not know them; what is shown is that the pipeline takes
them. The endpoint is one that the user runs, with a key that must not turn up anywhere.
"""

import pytest
from conftest import ROOT, Run

from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World

DATA = ROOT.parent / "shared" / "data" / "nq_hotpotqa"
KEY = "sk-this-key-must-not-leak-4711"


@pytest.fixture(scope="module")
def finished(run: Run) -> str:
    if not DATA.is_dir():
        pytest.skip(f"needs the NQ and HotpotQA sample in {DATA}")
    endpoint = SimulatedEndpoint(SimulatedLLM(World.build(1)), api_key=KEY)
    with running_server(endpoint) as server:
        return run.finish(
            f"data.train_files={DATA / 'train.parquet'}",
            f"data.val_files={DATA / 'test.parquet'}",
            "data.val_max_samples=16",
            "data.max_prompt_length=1280",
            "data.train_batch_size=8",
            "actor_rollout_ref.actor.ppo_mini_batch_size=8",
            "actor_rollout_ref.rollout.n=4",
            "trainer.total_training_steps=1",
            "workflow_r1.max_malformed_turns=1",
            f"workflow_r1.operators.base_url={server.base_url}",
            f"workflow_r1.operators.model={MODEL_NAME}",
            f"workflow_r1.operators.api_key={KEY}",
        )


def test_one_step_is_taken_on_real_questions(run, finished):
    assert "step   1/1" in finished
    assert run.metrics[1]["training/rollout_probs_diff_mean"] < 2e-3
    assert run.metrics[1]["actor/subsequences_per_response"] >= 1


def test_they_are_rolled_out_and_scored_by_data_source(run, finished):
    trajectories = run.trajectories("train", 1)
    assert len(trajectories) == 8 * 4
    assert all(t.golds and t.turns and "acc" in t.reward for t in trajectories)
    sources = {key.split("/")[1] for key in run.metrics[0] if key.startswith("val-core/")}
    assert sources == {"nq", "hotpotqa"}


def test_the_key_is_in_no_file_of_the_run_and_not_on_the_terminal(run, finished):
    assert KEY not in finished
    holders = [path for path in run.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holders == []
