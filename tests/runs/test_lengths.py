"""Prompts that are too long: counted and shown before the run, or refused; none is left out or cut unseen."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from transformers import Qwen3Config

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
        "filter_overlong_prompts": True,
    }
    rollout = {"prompt_length": "${data.max_prompt_length}", "response_length": 512}
    policy = {"path": model, "tokenizer_path": None, "custom_chat_template": None, "trust_remote_code": False}
    return OmegaConf.create({"data": data, "actor_rollout_ref": {"model": policy, "rollout": rollout}})


def test_where_every_prompt_just_fits_there_is_nothing_to_say(config: DictConfig):
    assert check_lengths(config) == []


def test_what_verl_leaves_out_is_counted_and_said(config: DictConfig):
    config.data.max_prompt_length = length(8)
    [note] = check_lengths(config)
    assert note == (
        f"1 of the 4 prompts of data.train_files are longer than data.max_prompt_length={length(8)} tokens (the "
        f"shortest prompt has {length(3)}, the longest {length(13)}): they are left out."
    )


@pytest.mark.parametrize(("most", "left"), [(length(3), 1), (length(3) - 1, 0), (1, 0)])
def test_fewer_than_a_batch_are_refused(config: DictConfig, most: int, left: int):
    config.data.max_prompt_length = most
    with pytest.raises(
        LaunchError, match=rf"the {left} that are left are no batch of 2: raise data\.max_prompt_length"
    ):
        check_lengths(config)


def test_a_validation_without_a_question_is_refused(config: DictConfig):
    config.data.max_prompt_length, config.data.train_batch_size = length(3), 1
    with pytest.raises(LaunchError, match=r"1 of the 1 prompts of data\.val_files are longer"):
        check_lengths(config)


def test_prompts_that_verl_would_cut_are_refused(config: DictConfig):
    config.data.max_prompt_length, config.data.filter_overlong_prompts = length(8), False
    with pytest.raises(LaunchError, match=r"data\.filter_overlong_prompts=False verl would cut off their beginning"):
        check_lengths(config)


def test_the_prompts_are_measured_as_the_template_renders_them(config: DictConfig):
    config.data.apply_chat_template_kwargs = {"add_generation_prompt_twice": True}
    assert check_lengths(config) == []
    config.actor_rollout_ref.model.custom_chat_template = "{{ 'word ' * 100 }}"
    with pytest.raises(LaunchError, match="4 of the 4 prompts"):
        check_lengths(config)


def test_a_prompt_that_the_template_refuses_is_named_by_its_row(config: DictConfig):
    config.actor_rollout_ref.model.custom_chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(LaunchError, match=r"cannot render the prompt of row 0 of .*: roles must alternate\."):
        check_lengths(config)


def test_a_context_shorter_than_a_rollout_is_refused(config: DictConfig):
    config.actor_rollout_ref.rollout.response_length = 1024
    with pytest.raises(LaunchError, match=r"and the context of .* is 1,024: lower them"):
        check_lengths(config)
