"""No key is shown, under whatever name or in whatever place a configuration holds it; settings are."""

import pytest
import yaml

from workflow_r1.viewer.masking import HIDDEN, masked

KEY = "Zx81-c0mmodore-64"


@pytest.mark.parametrize(
    "content",
    [
        {"api_key": KEY},
        {"apiKey": KEY},
        {"OPERATOR_API_KEY": KEY},
        {"services": [{"search": {"access-key": KEY}}]},
        {"token": KEY},
        {"hf_token": KEY},
        {"db": {"password": KEY}},
        {"client_secret": [KEY]},
        {"authorization": f"Bearer {KEY}"},
        [f"workflow_r1.operators.api_key={KEY}"],
        [f"++trainer.wandb_api_key='{KEY}'"],
        [f"+env={{OPERATOR_API_KEY:{KEY}}}"],
        {"base_url": f"https://user:{KEY}@example.org/v1"},
        {"base_url": f"https://example.org/v1?api_key={KEY}"},
        {"note": "sk-proj-abcdefghijklmnop", "of": "hf_abcdefghijklmnop"},
        {"header": f"Bearer {KEY}"},
    ],
    ids=str,
)
def test_a_key_is_hidden(content: object):
    shown = yaml.safe_dump(masked(content))
    assert HIDDEN in shown
    assert not any(key in shown for key in (KEY, "abcdefghijklmnop"))


@pytest.mark.parametrize(
    "content",
    [
        {"max_tokens": 5, "pad_token": "<pad>", "eos_token": "</s>", "max_response_tokens": 256},
        {"reward_fn_key": "data_source", "prompt_key": "prompt"},
        {"api_key": None},
        ["trainer.total_training_steps=24", "data.train_files='/data/train.parquet'"],
        {"base_url": "http://127.0.0.1:8000/v1"},
        {"tokenizer": "tiny", "seed": 1, "temperature": 0.7},
    ],
    ids=str,
)
def test_a_setting_is_shown(content: object):
    assert masked(content) == content
