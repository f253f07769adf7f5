"""What a user sees who gets something wrong: `workflow-r1 train` ends early, with one line that says what to do."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.system.folder_lock import FolderLock
from workflow_r1.world import tiny_policy

pytestmark = pytest.mark.slow  # each starts the whole command

QUESTION = {"data_source": "mine", "prompt": [{"role": "user", "content": "q"}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder. Whatever is wrong is said before the policy's cold start, which takes minutes."""

    def too_late(*_: object) -> None:
        pytest.fail("the cold start began before everything was checked")

    monkeypatch.setattr(tiny_policy, "ensure_tiny_policy", too_late)
    for name in ("OPERATOR_BASE_URL", "OPERATOR_API_KEY", "OPERATOR_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def error_of(folder: Path, *overrides: str, recipe: str = "workflow_r1_embedded") -> str:
    command = ["train", "--recipe", recipe, f"trainer.default_local_dir={folder}/run", *overrides]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    [line] = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert result.output.rstrip().endswith(line)
    return line


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.total_step=3", "Unknown setting 'trainer.total_step': check its spelling"),
        ("workflow_r1.pool.names=[Guess]", "There is no operator named 'Guess': choose from"),
        ("workflow_r1.limits.max_call=3", "workflow_r1.limits.max_call: there is no such setting"),
        ("workflow_r1=5", "workflow_r1: Input should be a valid dictionary"),
        ("workflow_r1.operators=x", "workflow_r1.operators: "),
        (
            "workflow_r1.operators.endpoints=5",
            "workflow_r1.operators.endpoints is 5, and has to hold settings by name.",
        ),
        ("workflow_r1.operators.endpoints={strong: x}", "workflow_r1.operators.endpoints.strong is 'x', and has to"),
        ("workflow_r1.operators.search=x", "workflow_r1.operators.search is 'x', and has to hold settings by name."),
        ("workflow_r1.limits.max_calls=no", "workflow_r1.limits.max_calls: Input should be a valid integer"),
        ("workflow_r1.prompt=nowhere.jinja", "The prompt template nowhere.jinja cannot be read: No such file"),
        ("++workflow_r1.operators.search={api_key:sk-x}", "set SEARCH_API_KEY in the environment"),
        ("trainer.default_local_dir=hdfs://far/away", "hdfs://far/away is no folder of this machine"),
        ("trainer.default_local_dir=null", "trainer.default_local_dir=None is no folder of this machine"),
        ("data.train_files=/nowhere/train.parquet", "does not exist. If it is not what you mean to train on, prepare"),
        ("actor_rollout_ref.model.path=/nowhere/model", "There is no model at '/nowhere/model'"),
        ("world.train_questions=50000", "ask for at most"),
        ("world.policy=large", "There is no world.policy 'large': take tiny or smollm2"),
        ("workflow_r1.operators.base_url=http://127.0.0.1:9/v1", "OPERATOR_API_KEY, OPERATOR_MODEL_NAME are not set"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_slow(folder: Path, override: str, sentence: str) -> None:
    assert sentence in error_of(folder, override)


def test_columns_that_are_missing_are_named(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist([QUESTION]), folder / "mine.parquet")
    assert "lacks the column(s) reward_model" in error_of(folder, f"data.train_files={folder}/mine.parquet")


def test_the_reference_recipe_without_an_endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = QUESTION | {"reward_model": {"style": "rule", "ground_truth": {"target": ["x"]}}}
    pq.write_table(pa.Table.from_pylist([row]), folder / "mine.parquet")
    (folder / "config.json").write_text("{}")
    files = [f"data.{name}={folder}/mine.parquet" for name in ("train_files", "val_files")]
    one_question = ("data.train_batch_size=1", "actor_rollout_ref.actor.ppo_mini_batch_size=1")
    settings = [*files, *one_question, "hardware=cpu", f"actor_rollout_ref.model.path={folder}"]
    line = error_of(folder, *settings, recipe="workflow_r1")
    assert "OPERATOR_BASE_URL, OPERATOR_API_KEY, OPERATOR_MODEL_NAME are not set" in line


def test_a_second_start_in_a_folder_is_refused_before_what_is_slow_to_import(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom workflow_r1.cli.app import app\n"
        "print(CliRunner().invoke(app, sys.argv[1:]).output, {'transformers', 'datasets', 'openai'} & set(sys.modules))"
    )
    with closing(FolderLock(tmp_path)):
        command = [sys.executable, "-c", code, "train", f"trainer.default_local_dir={tmp_path}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "is taken by another run (process " in output
    assert output.rstrip().endswith(" set()")
