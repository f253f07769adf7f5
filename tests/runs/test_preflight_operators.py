"""Operators that cannot be asked end a launch early, with one sentence that says what to do."""

import socket

import pytest
from omegaconf import OmegaConf
from support.launch_errors import one_sentence

from workflow_r1.runs import preflight
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM


def operators(**settings):
    return OmegaConf.create({"workflow_r1": {"operators": {"call_timeout": 10.0, "max_retries": 1, **settings}}})


@pytest.fixture
def no_endpoint(monkeypatch):
    for name in ("OPERATOR_BASE_URL", "OPERATOR_API_KEY", "OPERATOR_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(world):
    with running_server(SimulatedEndpoint(SimulatedLLM(world), api_key="right")) as server:
        yield server


@pytest.fixture
def endpoint(server, monkeypatch):
    monkeypatch.setenv("OPERATOR_BASE_URL", server.base_url)
    monkeypatch.setenv("OPERATOR_API_KEY", "right")
    monkeypatch.setenv("OPERATOR_MODEL_NAME", MODEL_NAME)


def test_an_endpoint_that_answers_passes(endpoint):
    preflight.check_operators(operators())


def test_no_endpoint_set(no_endpoint):
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(operators())
    assert "OPERATOR_BASE_URL" in one_sentence(error)


def test_an_endpoint_that_is_down(endpoint, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("OPERATOR_BASE_URL", f"http://127.0.0.1:{port}/v1")
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(operators())
    message = one_sentence(error)
    assert f"http://127.0.0.1:{port}/v1 cannot be reached: check that it runs" in message


def test_a_wrong_key_is_called_that_and_not_shown(endpoint, monkeypatch):
    monkeypatch.setenv("OPERATOR_API_KEY", "wrong-secret")
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(operators())
    message = one_sentence(error)
    assert "OPERATOR_API_KEY" in message
    assert "wrong-secret" not in message


def test_a_model_that_the_endpoint_does_not_serve(endpoint, monkeypatch):
    monkeypatch.setenv("OPERATOR_MODEL_NAME", "gpt-nowhere")
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(operators())
    assert "OPERATOR_MODEL_NAME" in one_sentence(error)


def test_a_setting_of_ours_that_does_not_exist(endpoint):
    config = operators()
    config.workflow_r1.max_call = 3
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(config)
    assert "workflow_r1.max_call" in one_sentence(error)


def test_an_unknown_operator(endpoint):
    config = operators()
    config.workflow_r1.pool = {"names": ["AnswerGenerate", "Guess"]}
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(config)
    assert "Guess" in one_sentence(error)


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ({"operators": {"api_key": "sk-secret"}}, "OPERATOR_API_KEY"),
        ({"operators": {"endpoints": {"Review": {"api_key": "sk-secret"}}}}, "OPERATOR_API_KEY_REVIEW"),
        ({"operators": {"search": {"api_key": "sk-secret"}}}, "SEARCH_API_KEY"),
    ],
)
def test_a_key_in_the_configuration_is_refused_and_not_shown(setting, variable):
    config = OmegaConf.create({"workflow_r1": setting})
    with pytest.raises(LaunchError) as error:
        preflight.check_keys(config)
    message = one_sentence(error)
    assert f"set {variable} in the environment" in message
    assert "sk-secret" not in message


def test_a_configuration_without_a_key_passes():
    endpoints = {"Review": {"model": "large", "api_key": None}}
    preflight.check_keys(OmegaConf.create({"workflow_r1": {"operators": {"endpoints": endpoints, "search": None}}}))


@pytest.mark.parametrize("bound", ["max_calls", "max_tokens", "max_cost"])
def test_a_budget_that_nothing_counts_towards_is_refused(endpoint, bound):
    config = operators(prompt_price=1.0)
    config.workflow_r1.budget = {bound: 5}
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(config)
    assert f"workflow_r1.budget.{bound} is set, and without a workflow_r1.run_dir" in one_sentence(error)


def test_a_budget_in_dollars_needs_a_price(endpoint, tmp_path):
    config = operators()
    config.workflow_r1.update({"budget": {"max_cost": 5}, "run_dir": str(tmp_path)})
    with pytest.raises(LaunchError) as error:
        preflight.check_operators(config)
    assert "set workflow_r1.operators.prompt_price" in one_sentence(error)
    for price in ("prompt_price", "completion_price"):
        config.workflow_r1.operators = {**operators().workflow_r1.operators, price: 0.1}
        preflight.check_operators(config)
