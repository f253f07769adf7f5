"""GSsPO for anyone's agent: verl's own `tool_agent` loop with `examples/my_verl_agent`, on a CPU."""

import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Command

from workflow_r1.runs.cpu_environment import cpu_environment
from workflow_r1.runs.progress import read_metrics
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World

EXAMPLE = ROOT / "examples" / "my_verl_agent"
PARSER = '''
import json
import re

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser


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
'''


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict[int, dict[str, float]]:
    folder = tmp_path_factory.mktemp("tool_agent")
    (folder / "tools.py").write_text((EXAMPLE / "tools.py").read_text() + PARSER)
    policy = ensure_tiny_policy(World.build(1), cache_dir(), seed=1)  # the embedded recipe's
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    overrides = [
        f"actor_rollout_ref.model.path={policy}",
        f"{rollout}.multi_turn.format=tagged",
        f"{rollout}.multi_turn.function_tool_path={folder}/tools.py",
        f"{rollout}.multi_turn.max_assistant_turns=3",
        f"{rollout}.n=4",
        "data.train_batch_size=4",
        f"{actor}.ppo_mini_batch_size=4",
        "data.max_prompt_length=256",
        "data.max_response_length=128",
        f"{actor}.optim.lr=1e-4",
        "trainer.total_training_steps=1",
        "trainer.val_before_train=False",
        "trainer.logger=[file]",
        # What a CPU needs, as in workflow_r1_embedded.yaml; nothing below is about GSsPO.
        "trainer.device=cpu",
        "actor_rollout_ref.model.use_remove_padding=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        f"{actor}.strategy=fsdp2",
        f"{actor}.use_torch_compile=False",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype=fp32",
        f"+{actor}.fsdp_config.mixed_precision.reduce_dtype=fp32",
        f"{rollout}.dtype=float32",
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
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = Command(
        ["bash", str(EXAMPLE / "run.sh"), *overrides],
        env=cpu_environment(cache_dir(), {**os.environ, "PATH": path, "VERL_FILE_LOGGER_PATH": str(log)}),
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
