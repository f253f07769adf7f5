"""Every failure that a new user can cause ends early, with one sentence that says what to do."""

import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from workflow_r1.launch import preflight
from workflow_r1.launch.recipe import LaunchError
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM

ROW = {
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "q"}],
    "reward_model": {"style": "rule", "ground_truth": {"target": ["a"]}},
}


def test_a_setting_that_would_replace_the_loss_is_refused():
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"actor": {"policy_loss": {"loss_mode": "gsspo"}}},
            "algorithm": {"rollout_correction": {"bypass_mode": True}},
        }
    )
    with pytest.raises(LaunchError) as error:
        preflight.check_loss(config)
    assert "bypass" in one_sentence(error)


def one_sentence(error: pytest.ExceptionInfo[LaunchError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def parquet(path, **changes):
    row = {key: value for key, value in {**ROW, **changes}.items() if value is not None}
    pq.write_table(pa.Table.from_pylist([row]), path)
    return OmegaConf.create({"data": {"train_files": str(path), "val_files": [str(path)]}})


def test_good_data_passes(tmp_path):
    preflight.check_data(parquet(tmp_path / "a.parquet"))


def test_missing_columns_are_named_with_those_found(tmp_path):
    with pytest.raises(LaunchError) as error:
        preflight.check_data(parquet(tmp_path / "a.parquet", reward_model=None))
    message = one_sentence(error)
    assert "lacks the column(s) reward_model" in message
    assert "it has data_source, prompt" in message


def test_gold_answers_in_another_shape_are_noticed(tmp_path):
    with pytest.raises(LaunchError) as error:
        preflight.check_data(parquet(tmp_path / "a.parquet", reward_model={"ground_truth": "a"}))
    assert "reward_model.ground_truth.target" in one_sentence(error)


def test_a_file_that_is_no_parquet_or_not_there(tmp_path):
    (tmp_path / "text.parquet").write_text("hello")
    for name, expected in (("text.parquet", "not a parquet file"), ("none.parquet", "does not exist")):
        config = OmegaConf.create({"data": {"train_files": str(tmp_path / name), "val_files": []}})
        with pytest.raises(LaunchError) as error:
            preflight.check_data(config)
        assert expected in one_sentence(error)


def test_no_data_is_named():
    with pytest.raises(LaunchError) as error:
        preflight.check_data(OmegaConf.create({"data": {"train_files": None, "val_files": None}}))
    assert "data.train_files is not set" in one_sentence(error)


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


def operators(**settings):
    return OmegaConf.create({"workflow_r1": {"operators": {"call_timeout": 2.0, "max_retries": 1, **settings}}})


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
    config.workflow_r1.operator_names = ["AnswerGenerate", "Guess"]
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


def test_a_python_that_verl_does_not_run_on(monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 13, 0))
    with pytest.raises(LaunchError) as error:
        preflight.check_machine(cpu=True)
    assert "3.10 to 3.12" in one_sentence(error)


def test_no_compiler_matters_on_a_cpu_only(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    preflight.check_machine(cpu=False)
    with pytest.raises(LaunchError) as error:
        preflight.check_machine(cpu=True)
    assert "install g++" in one_sentence(error)
