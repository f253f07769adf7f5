"""A model that cannot be a policy is refused by its tokenizer and chat template alone, before anything starts."""

from pathlib import Path

import pytest
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from support.chat_templates import CHATML, KINDS, WITHOUT_SYSTEM, needs_code, tokenizer_of
from support.launch_errors import one_sentence
from tokenizers import normalizers

from workflow_r1.policy.chat_format import PLAIN_TEMPLATE, usable_template
from workflow_r1.runs import preflight
from workflow_r1.runs import train as launcher
from workflow_r1.runs.preflight import check_chat_template, check_template_arguments
from workflow_r1.runs.recipe import LaunchError, compose_recipe


def config(folder: Path, **model: object) -> DictConfig:
    model = {
        "path": str(folder),
        "tokenizer_path": None,
        "trust_remote_code": False,
        "custom_chat_template": None,
        **model,
    }
    return OmegaConf.create({"actor_rollout_ref": {"model": model}, "data": {"apply_chat_template_kwargs": {}}})


def told(arguments: object) -> DictConfig:
    return OmegaConf.create({"data": {"apply_chat_template_kwargs": arguments}})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("ChatML", None), ("alternating", None), ("base, without a template", PLAIN_TEMPLATE)],
)
def test_a_policy_keeps_its_template_or_gets_the_one_it_needs(kind: str, expected: str | None, tmp_path: Path):
    tokenizer_of(KINDS[kind]).save_pretrained(tmp_path)
    assert check_chat_template(config(tmp_path)) == (expected, None)


def test_a_template_of_the_users_own_is_checked_in_place_of_the_models(tmp_path: Path):
    tokenizer_of(KINDS["base, without a template"]).save_pretrained(tmp_path)
    assert check_chat_template(config(tmp_path, custom_chat_template=CHATML)) == (None, None)
    with pytest.raises(LaunchError, match=r"^The model '.*' cannot be a policy: its chat template .*\.$"):
        check_chat_template(config(tmp_path, custom_chat_template="{{ messages[0].content }}"))


def test_what_the_template_is_told_in_training_is_told_here(tmp_path: Path):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.chat_template = CHATML + "{% if mode == 'odd' %}{{ raise_exception('Odd mode') }}{% endif %}"
    tokenizer.save_pretrained(tmp_path)
    configuration = config(tmp_path)
    assert check_chat_template(configuration) == (None, None)
    configuration.data.apply_chat_template_kwargs = {"mode": "odd"}
    with pytest.raises(LaunchError, match="Odd mode"):
        check_chat_template(configuration)


@pytest.mark.parametrize(
    "name",
    [
        *("tokenize", "add_generation_prompt", "tools", "return_dict", "return_tensors", "conversation", "messages"),
        *("conversations", "continue_final_message", "max_length", "tokenizer", "processor", "chat_template", "self"),
    ],
)
def test_how_the_template_is_rendered_is_no_variable_of_it(name: str):
    with pytest.raises(LaunchError, match=rf"^data\.apply_chat_template_kwargs\.{name} says how .*: leave it out.*\.$"):
        check_template_arguments(told({"enable_thinking": False, name: True}))


def test_variables_of_a_template_are_its_makers_choice():
    check_template_arguments(told({}))
    check_template_arguments(told({"enable_thinking": False, "documents": [{"title": "a"}], "bos_token": ""}))


@pytest.mark.parametrize("value", [None, [1], "enable_thinking", 3, {1: 2}])
def test_what_are_no_variables_of_a_template_is_refused(value: object):
    with pytest.raises(LaunchError, match=r"^data\.apply_chat_template_kwargs is .*: write .*NAME=VALUE\.$"):
        check_template_arguments(told(value))


def test_a_tokenizer_that_needs_code_of_its_own_names_the_setting(tmp_path: Path):
    needs_code(tmp_path)
    with pytest.raises(
        LaunchError, match=r"and if you trust it set actor_rollout_ref\.model\.trust_remote_code=True, or"
    ):
        check_chat_template(config(tmp_path))
    assert check_chat_template(config(tmp_path, trust_remote_code=True)) == (None, None)


def test_what_the_tokenizer_loses_is_said(tmp_path: Path):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("東京", "")
    tokenizer.save_pretrained(tmp_path)
    template, note = check_chat_template(config(tmp_path))
    assert template is None
    assert note.startswith("The policy's tokenizer does not give back Japanese as written (")


def test_a_folder_without_a_tokenizer_says_so_in_one_sentence(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LaunchError) as error:
        check_chat_template(config(tmp_path))
    assert "cannot be loaded (" in str(error.value)
    assert "set actor_rollout_ref.model.tokenizer_path" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["no system role", "base, without a template"])
def test_a_template_reaches_verl_through_hydra_as_it_is(kind: str):
    template = usable_template(tokenizer_of(KINDS[kind]))
    quoted = QuotedString(str(template), Quote.single).with_quotes()
    composed = compose_recipe("workflow_r1", [f"actor_rollout_ref.model.custom_chat_template={quoted}"])
    assert composed.actor_rollout_ref.model.custom_chat_template == template
    assert kind != "no system role" or template.endswith(WITHOUT_SYSTEM.strip())


def test_the_launcher_hands_the_template_to_verl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer_of(KINDS["base, without a template"]).save_pretrained(tmp_path / "model")
    started: list[str] = []
    monkeypatch.setattr(launcher, "_check", lambda *checked: None)
    monkeypatch.setattr(launcher.preflight, "check_machine", lambda *machine: None)
    monkeypatch.setattr(launcher.preflight, "check_lengths", lambda config: [])
    monkeypatch.setattr(launcher, "_run", lambda console, recipe, overrides, *rest: started.extend(overrides) or 0)
    monkeypatch.setattr(launcher, "end_in_order", lambda: None)
    places = [f"actor_rollout_ref.model.path={tmp_path / 'model'}", f"trainer.default_local_dir={tmp_path / 'out'}"]
    assert launcher.train(places, "workflow_r1") == 0
    assert compose_recipe("workflow_r1", started).actor_rollout_ref.model.custom_chat_template == PLAIN_TEMPLATE


def test_no_model_is_named():
    with pytest.raises(LaunchError) as error:
        preflight.check_model(None)
    assert "set actor_rollout_ref.model.path" in one_sentence(error)


@pytest.mark.parametrize("path", ["/nowhere/model", "./model", "a/b/c", "model"])
def test_a_model_path_that_does_not_exist(path):
    with pytest.raises(LaunchError) as error:
        preflight.check_model(path)
    assert "There is no model at" in one_sentence(error)


def test_a_hub_model_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LaunchError) as error:
        preflight.check_model("someone/some-model")
    assert "could not be loaded from the Hugging Face Hub" in one_sentence(error)
