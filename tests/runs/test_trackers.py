"""Whatever trackers a user names, progress has its file, and nothing lands in the working directory."""

from pathlib import Path

import pytest
from verl.utils.tracking import Tracking

from workflow_r1.runs.recipe import LaunchError
from workflow_r1.runs.trackers import TRACKERS, tracker_places, trackers_of


@pytest.mark.parametrize(
    ("logger", "trackers"),
    [
        (["console"], ["console", "file"]),
        ("console", ["console", "file"]),
        ([], ["file"]),
        (None, ["file"]),
        (["file", "console", "file"], ["file", "console"]),
        (["tensorboard", "console"], ["tensorboard", "console", "file"]),
    ],
)
def test_the_metrics_file_is_written_whatever_the_user_names(recipe, logger, trackers):
    assert trackers_of(recipe({"trainer.logger": logger})) == trackers


def test_every_tracker_of_verl_is_known():
    assert set(TRACKERS) == {*Tracking.supported_backend, "tracking"}


@pytest.mark.parametrize("logger", ["Console", "console,wandb", ["console", "wandbb"]])
def test_a_tracker_that_verl_does_not_have_is_named_with_those_it_has(recipe, logger):
    with pytest.raises(LaunchError, match=r"trainer\.logger names the tracker .* take some of \[console,file,"):
        trackers_of(recipe({"trainer.logger": logger}))


def test_a_tracker_that_is_not_installed_is_said_before_the_run(recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="mlflow is not installed: pip install mlflow"):
        trackers_of(recipe({"trainer.logger": ["mlflow"]}))


def test_wandb_without_an_account_is_said_before_the_run(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LaunchError, match="set WANDB_API_KEY, or WANDB_MODE=offline to write files only"):
        trackers_of(recipe({"trainer.logger": ["wandb"]}))
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert trackers_of(recipe({"trainer.logger": ["wandb"]})) == ["wandb", "file"]
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai")
    assert trackers_of(recipe({"trainer.logger": ["wandb"]})) == ["wandb", "file"]


def test_what_trackers_write_goes_into_the_runs_folder_unless_the_user_says_where():
    names, folder = ["console", "file", "tensorboard", "wandb", "mlflow"], Path("/runs/one")
    places = tracker_places(names, folder, {"TENSORBOARD_DIR": "/mine"})
    assert places == {
        "WANDB_DIR": "/runs/one",
        "MLFLOW_TRACKING_URI": "sqlite:////runs/one/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "/runs/one/mlruns",
    }
    assert tracker_places(["mlflow"], folder, {"MLFLOW_TRACKING_URI": "https://mlflow.example"}) == {}
