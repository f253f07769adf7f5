"""GSsPO for anyone's agent: verl's own `tool_agent` loop, its own recipe and reward, and one flag of ours."""

import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command

from workflow_r1.runs.cpu_environment import cpu_environment
from workflow_r1.runs.report import read_metrics
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World

TOOL = '''
import json
import re

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.function_tool import function_tool


@ToolParser.register("tagged")
class TaggedToolParser(ToolParser):
    """The tiny policy's own way to call a tool, <tool>Name: input</tool>, as any model has one."""

    @property
    def stop_token_ids(self):
        return [self.tokenizer.convert_tokens_to_ids("</tool>")]

    async def extract_tool_calls(self, responses_ids, tools=None):
        text = self.tokenizer.decode(responses_ids)
        inputs = re.findall("<tool>[^:<]*:(.*?)</tool>", text)
        return text, [FunctionCall(name="lookup", arguments=json.dumps({"name": one})) for one in inputs]


@function_tool
def lookup(name: str) -> str:
    """Look a name up.

    Args:
        name: what to look up.
    """
    return "Anker"
'''
REWARD = """
import random

def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return random.random()  # any reward that differs within a group makes a gradient
"""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict[int, dict[str, float]]:
    folder = tmp_path_factory.mktemp("tool_agent")
    (folder / "tools.py").write_text(TOOL)
    (folder / "reward.py").write_text(REWARD)
    row = {
        "data_source": "mine",
        "agent_name": "tool_agent",
        "prompt": [{"role": "user", "content": "who directed Velmora ?"}],
        "reward_model": {"style": "rule", "ground_truth": "Anker"},
        "extra_info": {"index": 0},
    }
    pq.write_table(pa.Table.from_pylist([row] * 8), folder / "data.parquet")
    policy = ensure_tiny_policy(World.build(1), cache_dir(), seed=1)  # the embedded recipe's
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    overrides = [
        f"{actor}.policy_loss.loss_mode=gsspo",  # the one flag
        "algorithm.adv_estimator=grpo",
        f"data.train_files={folder}/data.parquet",
        f"data.val_files={folder}/data.parquet",
        "data.train_batch_size=4",
        "data.max_prompt_length=256",
        "data.max_response_length=128",
        f"actor_rollout_ref.model.path={policy}",
        f"{rollout}.n=4",
        f"{rollout}.multi_turn.max_assistant_turns=3",
        f"{rollout}.multi_turn.format=tagged",
        f"{rollout}.multi_turn.function_tool_path={folder}/tools.py",
        f"reward.custom_reward_function.path={folder}/reward.py",
        f"{actor}.ppo_mini_batch_size=4",
        f"{actor}.use_dynamic_bsz=True",
        f"{actor}.optim.lr=1e-4",
        "trainer.total_training_steps=1",
        "trainer.val_before_train=False",
        "trainer.logger=[file]",
        f"trainer.default_local_dir={folder}",
        # What a CPU needs, as in workflow_r1_embedded.yaml; nothing below is about GSsPO.
        "trainer.device=cpu",
        "trainer.n_gpus_per_node=1",
        "actor_rollout_ref.model.use_remove_padding=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        f"{actor}.strategy=fsdp2",
        f"{actor}.use_torch_compile=False",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype=fp32",
        f"+{actor}.fsdp_config.mixed_precision.reduce_dtype=fp32",
        f"{rollout}.name=vllm",
        f"{rollout}.dtype=float32",
        f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.enforce_eager=True",
        f"{rollout}.free_cache_engine=False",
        f"+{rollout}.enable_sleep_mode=False",
        f"{rollout}.agent.num_workers=1",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes=16",
        f"+{rollout}.engine_kwargs.vllm.kv_cache_memory_bytes=67108864",
        "reward.num_workers=1",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        "ray_kwargs.ray_init.num_cpus=16",
        "+ray_kwargs.ray_init.num_gpus=1",
    ]
    log = folder / "metrics-001.jsonl"
    command = Command(
        [sys.executable, "-m", "verl.trainer.main_ppo", *overrides],
        env=cpu_environment(cache_dir(), {**os.environ, "VERL_FILE_LOGGER_PATH": str(log)}),
        cwd=folder,
    )
    try:
        command.finish(code=0)
    finally:
        command.kill()
    return read_metrics(folder)


def test_verls_tool_agent_trains_with_gsspo(metrics):
    step = metrics[1]
    assert step["actor/grad_norm"] > 0
    assert step["training/rollout_probs_diff_mean"] < 1e-6


def test_the_loss_is_ours_and_its_responses_have_turns(metrics):
    assert metrics[1]["actor/subsequences_per_response"] > 1
    assert metrics[1]["actor/ratio_mean"] == pytest.approx(1.0, abs=1e-4)
