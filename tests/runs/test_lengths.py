"""Prompts that are too long: counted with the run's system message before the run; none is left out or cut unseen."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from support.chat_templates import KINDS, tokenizer_of
from transformers import Qwen3Config

from workflow_r1.config import WorkflowConfig
from workflow_r1.policy.chat_format import read_chat_format
from workflow_r1.runs.preflight import check_lengths
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.world.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(["who directed Velmora ?", "word "])


def prompt(words: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "word " * words}]


def length(words: int) -> int:
    return len(TOKENIZER.apply_chat_template(prompt(words), add_generation_prompt=True, return_dict=False))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    Qwen3Config(max_position_embeddings=1024).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def config(tmp_path, model: str) -> DictConfig:
    """Four questions to train on and one to validate with; a batch is two."""
    for name, sizes in {"train": [3, 5, 8, 13], "val": [5]}.items():
        pq.write_table(pa.Table.from_pylist([{"prompt": prompt(size)} for size in sizes]), tmp_path / f"{name}.parquet")
    data = {
        "train_files": [str(tmp_path / "train.parquet")],
        "val_files": str(tmp_path / "val.parquet"),
        "prompt_key": "prompt",
        "train_batch_size": 2,
        "max_prompt_length": length(13),
        "filter_overlong_prompts": False,
    }
    rollout: dict[str, Any] = {"prompt_length": "${data.max_prompt_length}", "response_length": 512}
    rollout["agent"] = {"default_agent_loop": "workflow_r1_agent_loop"}
    policy = {"path": model, "tokenizer_path": None, "custom_chat_template": None, "trust_remote_code": False}
    return OmegaConf.create(
        {"data": data, "actor_rollout_ref": {"model": policy, "rollout": rollout}, "workflow_r1": {"prompt": "none"}}
    )


def test_where_every_prompt_just_fits_there_is_nothing_to_say(config: DictConfig):
    assert check_lengths(config) == []


def test_what_is_too_long_is_refused_by_number_and_length(config: DictConfig):
    config.data.max_prompt_length = length(8)
    with pytest.raises(LaunchError) as error:
        check_lengths(config)
    assert str(error.value) == (
        f"1 of the 4 prompts of data.train_files are longer than data.max_prompt_length={length(8)} tokens (the "
        f"shortest prompt has {length(3)}, the longest {length(13)}), and none is cut or left out: raise "
        "data.max_prompt_length, take a shorter workflow_r1.prompt or take them out of the data."
    )


def test_the_validations_prompts_are_measured_too(config: DictConfig, tmp_path: Path):
    pq.write_table(pa.Table.from_pylist([{"prompt": prompt(20)}]), tmp_path / "val.parquet")
    with pytest.raises(LaunchError, match=r"1 of the 1 prompts of data\.val_files are longer"):
        check_lengths(config)


def test_the_runs_system_message_counts(config: DictConfig, tmp_path: Path):
    system = "word " * 30 + "Review"
    (tmp_path / "prompt.jinja").write_text(system)
    config.workflow_r1 = {"prompt": str(tmp_path / "prompt.jinja"), "pool": {"names": ["Review"]}}
    messages = [{"role": "system", "content": system}, *prompt(13)]
    longest = len(TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    config.data.max_prompt_length = longest
    assert check_lengths(config) == []
    config.data.max_prompt_length = longest - 1
    with pytest.raises(LaunchError, match=rf"the longest {longest}\), and none is cut"):
        check_lengths(config)


@pytest.mark.parametrize("kind", ["ChatML", "channels"])
def test_what_a_session_starts_from_is_measured_to_the_token(config: DictConfig, tmp_path: Path, kind: str):
    """With the channel, too, that a template writes before a turn beyond its own generation prompt."""
    tokenizer = tokenizer_of(KINDS[kind])
    Qwen3Config(max_position_embeddings=8192).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    config.actor_rollout_ref.model.path, config.workflow_r1 = str(tmp_path / "policy"), {"prompt": "default"}
    messages = WorkflowConfig().policy_prompt().messages(prompt(13))
    longest = len(read_chat_format(tokenizer).prompt_ids(messages))
    config.data.max_prompt_length = longest
    assert check_lengths(config) == []
    config.data.max_prompt_length = longest - 1
    with pytest.raises(LaunchError, match=rf"the longest {longest:,}\)"):
        check_lengths(config)


def test_a_row_with_a_system_message_of_its_own_is_measured_with_that(config: DictConfig, tmp_path: Path):
    own = [{"role": "system", "content": "word"}, *prompt(3)]
    pq.write_table(pa.Table.from_pylist([{"prompt": own}] * 2), tmp_path / "train.parquet")
    pq.write_table(pa.Table.from_pylist([{"prompt": own}]), tmp_path / "val.parquet")
    config.workflow_r1 = {"prompt": "default"}
    assert check_lengths(config) == []


@pytest.mark.parametrize("by", ["row", "configuration"])
def test_rows_of_another_agent_are_measured_as_they_stand(config: DictConfig, tmp_path: Path, by: str):
    config.workflow_r1 = {"prompt": "default"}
    if by == "configuration":
        config.actor_rollout_ref.rollout.agent.default_agent_loop = "tool_agent"
    else:
        for name in ("train", "val"):
            row = {"prompt": prompt(13), "agent_name": "tool_agent"}
            pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
    assert check_lengths(config) == []


class TestWhereVerlLeavesLongPromptsOut:
    """As it can with another agent loop than ours."""

    @pytest.fixture(autouse=True)
    def filtered(self, config: DictConfig) -> None:
        config.data.filter_overlong_prompts = True
        config.actor_rollout_ref.rollout.agent.default_agent_loop = "tool_agent"

    def test_they_are_counted_and_said(self, config: DictConfig):
        config.data.max_prompt_length = length(8)
        [note] = check_lengths(config)
        assert note.startswith("1 of the 4 prompts of data.train_files are longer than data.max_prompt_length=")
        assert note.endswith(f"(the shortest prompt has {length(3)}, the longest {length(13)}): they are left out.")

    @pytest.mark.parametrize(("most", "left"), [(length(3), 1), (length(3) - 1, 0), (1, 0)])
    def test_fewer_than_a_batch_are_refused(self, config: DictConfig, most: int, left: int):
        config.data.max_prompt_length = most
        reason = rf"the {left} that are left are no batch of 2: raise data\.max_prompt_length"
        with pytest.raises(LaunchError, match=reason):
            check_lengths(config)


def test_the_prompts_are_measured_as_the_template_renders_them(config: DictConfig):
    config.data.apply_chat_template_kwargs = {"add_generation_prompt_twice": True}
    assert check_lengths(config) == []
    template = "{{ 'word ' * 100 }}" + TOKENIZER.chat_template
    config.actor_rollout_ref.model.custom_chat_template = template
    with pytest.raises(LaunchError, match="4 of the 4 prompts"):
        check_lengths(config)


def test_a_prompt_that_the_template_refuses_is_named_by_its_row(config: DictConfig):
    refusal = "{% if messages[-1].content.split() | length > 5 %}{{ raise_exception('too wordy') }}{% endif %}"
    config.actor_rollout_ref.model.custom_chat_template = refusal + TOKENIZER.chat_template
    with pytest.raises(LaunchError, match=r"cannot render the prompt of row 2 of .*: too wordy\."):
        check_lengths(config)


def test_a_context_shorter_than_a_rollout_is_refused(config: DictConfig):
    config.actor_rollout_ref.rollout.response_length = 1024
    with pytest.raises(LaunchError, match=r"and the context of .* is 1,024: lower them"):
        check_lengths(config)
