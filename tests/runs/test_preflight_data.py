"""Data files that cannot be trained on end a launch early, with one sentence that says what to do."""

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from support.launch_errors import one_sentence
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.runs import preflight
from workflow_r1.runs.recipe import LaunchError

ROW = {
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "q"}],
    "reward_model": {"style": "rule", "ground_truth": {"target": ["x"]}},
}


def parquet(path, **changes):
    return data_of(path, [{key: value for key, value in {**ROW, **changes}.items() if value is not None}])


def data_of(path, *files):
    """Write files of rows; the first has the path, as JSON where its name says so."""
    paths = [path, *(path.with_stem(f"{path.stem}-{number}") for number in range(1, len(files)))]
    for file, rows in zip(paths, files, strict=True):
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        else:
            file.write_text("\n".join(map(json.dumps, rows)))
    data = {"train_files": [str(file) for file in paths], "val_files": str(path)}
    return OmegaConf.create({"data": data, "reward": {"reward_manager": {"name": "workflow_r1"}}})


def target(value):
    return ROW | {"reward_model": {"ground_truth": {"target": value}}}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
@pytest.mark.parametrize(
    "ground_truth", [{"target": ["x"]}, {"target": "Paris"}, "72", ["x", "y"], {"target": [1987.0]}], ids=repr
)
def test_every_layout_of_gold_answers_with_one_meaning_passes(tmp_path, name, ground_truth):
    preflight.check_data(parquet(tmp_path / name, reward_model={"ground_truth": ground_truth}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"reward_model": {"ground_truth": {"target": ["['x' 'y']"]}}}, "a gold answer that is a list saved as text"),
        ({"reward_model": {"ground_truth": {"target": ["*"]}}}, "no gold answer but punctuation and articles"),
        ({"reward_model": {"ground_truth": {"target": []}}}, "no gold answer"),
        ({"reward_model": {"ground_truth": {"target": [["x"]]}}}, "a value that is neither text nor a number: ['x']"),
        ({"reward_model": {"ground_truth": {"solution": "x"}}}, "no reward_model.ground_truth"),
        ({"reward_model": '{"ground_truth": "x"}'}, "no reward_model.ground_truth"),
        ({"prompt": "who?"}, "a prompt that is no list of messages"),
        ({"prompt": []}, "a prompt that is no list of messages"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "a prompt that is no list of messages"),
        ({"prompt": [{"role": "user", "content": None}]}, "a prompt that is no list of messages"),
        ({"data_source": 7}, "no text that names its data source: 7"),
        ({"extra_info": "{}"}, "an extra_info that is no object"),
    ],
)
def test_a_row_that_cannot_be_rolled_out_or_scored_is_named(tmp_path, changes, complaint):
    config = parquet(tmp_path / "a.parquet", **changes)
    with pytest.raises(LaunchError) as error:
        preflight.check_data(config)
    message = one_sentence(error)
    assert message.startswith(f"data.train_files: {tmp_path}/a.parquet, row 0 (the first is 0) has {complaint}")
    assert message.endswith("1 of 1 row(s) have faults (0): mend them.")


def test_every_row_of_every_file_is_looked_at(tmp_path):
    good, bad = [target(["x"])] * 5000, [target(["x"])] * 4999 + [target(["!"]), target([])]
    config = data_of(tmp_path / "a.parquet", good, bad)
    with pytest.raises(LaunchError) as error:
        preflight.check_data(config)
    assert f"{tmp_path}/a-1.parquet, row 4,999 (the first is 0) has" in one_sentence(error)
    assert "2 of 5,001 row(s)" in one_sentence(error)
    config.data.train_files, config.data.val_files = str(tmp_path / "a.parquet"), [str(tmp_path / "a-1.parquet")]
    with pytest.raises(LaunchError, match=r"^data\.val_files: .*a-1\.parquet, row 4,999"):
        preflight.check_data(config)
    config.data.val_files = str(tmp_path / "a.parquet")
    preflight.check_data(config)


def test_what_verl_would_read_otherwise_than_it_stands_is_noticed(tmp_path):
    """verl loads JSON with a library that takes texts like these for dates."""
    with pytest.raises(LaunchError, match=r"a text that verl takes for a date in JSON: '1987-05-01 00:00:00'; 1 of 1 "):
        preflight.check_data(data_of(tmp_path / "a.jsonl", [target(["1987-05-01"])]))
    preflight.check_data(data_of(tmp_path / "a.parquet", [target(["1987-05-01"])]))


@pytest.mark.parametrize(
    ("name", "golds", "shown", "kept"),
    [
        (
            "a b's.parquet",
            ["The The", "Paris", "!!!", "a", "Rome", "*", "-", "..."],
            "6 of 8 row(s) have faults (0, 2, 3, 5, 6, ...)",
            2,
        ),
        ("a.jsonl", ["x", "Paris", "Rome", "!"], "1 of 4 row(s) have faults (3)", 3),
        ("a.jsonl", ["1987-05-01", "1988-06-02"], "2 of 2 row(s) have faults (0, 1)", 2),
    ],
)
def test_the_command_that_is_shown_makes_files_of_the_other_rows(tmp_path, name, golds, shown, kept):
    rows = [target([gold]) | {"prompt": [{"role": "user", "content": f"question {gold}?"}]} for gold in golds]
    with pytest.raises(LaunchError) as error:
        preflight.check_data(data_of(tmp_path / name, rows))
    assert shown in one_sentence(error)
    _, *command = shlex.split(str(error.value).partition(" after: ")[2])
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    made = [tmp_path / f"{Path(name).stem}-prepared" / f"{split}.parquet" for split in ("train", "test")]
    assert sum(pq.read_metadata(file).num_rows for file in made) == kept
    data = {"train_files": str(made[0]), "val_files": str(made[1])}
    preflight.check_data(OmegaConf.create({"data": data, "reward": {"reward_manager": {"name": "workflow_r1"}}}))


def test_no_command_is_shown_where_it_would_leave_no_rows(tmp_path):
    with pytest.raises(LaunchError, match=r"2 of 3 row\(s\) have faults \(1, 2\): mend them\.$"):
        preflight.check_data(data_of(tmp_path / "a.parquet", [target([gold]) for gold in ("Paris", "!", "*")]))


def test_files_that_verl_cannot_join_are_named_with_their_columns(tmp_path):
    with pytest.raises(LaunchError) as error:
        preflight.check_data(data_of(tmp_path / "a.parquet", [target(["x"])], [target("x")]))
    assert (
        f"{tmp_path}/a.parquet and {tmp_path}/a-1.parquet cannot be used together, since the types in "
        in one_sentence(error)
    )
    assert "reward_model differ" in one_sentence(error)


OURS = "workflow_r1_agent_loop"


def agents(path, *names_by_file):
    """Files whose rows name these agent loops; None for a file without the column."""
    files = [[ROW] if names is None else [ROW | {"agent_name": name} for name in names] for names in names_by_file]
    return data_of(path, *files)


@pytest.mark.parametrize("names", [[[OURS], [OURS, OURS]], [None, None]])
def test_every_row_or_none_names_the_agent_loop(tmp_path, names):
    preflight.check_data(agents(tmp_path / "a.parquet", *names))


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        ([[OURS, OURS], None], "1 of 1 rows of .*a-1.parquet"),
        ([None, [OURS]], "1 of 1 rows of .*a.parquet"),
        ([[OURS], [OURS, None, ""]], "2 of 3 rows of .*a-1.parquet"),
        ([[OURS], [OURS], [None, None, OURS]], "2 of 3 rows of .*a-2.parquet"),
    ],
)
def test_rows_that_verl_would_not_roll_out_are_counted(tmp_path, names, lacking):
    with pytest.raises(LaunchError, match=f"data.train_files: {lacking} have no agent_name, where others") as error:
        preflight.check_data(agents(tmp_path / "a.parquet", *names))
    one_sentence(error)


def test_another_reward_has_golds_of_its_own_kind(tmp_path):
    config = parquet(tmp_path / "a.parquet", reward_model={"ground_truth": {"tests": "assert f(1)"}})
    with pytest.raises(LaunchError, match=r"no reward_model\.ground_truth"):
        preflight.check_data(config)
    config.reward.reward_manager.name = "naive"
    preflight.check_data(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "q"}]},
        {"question": ["q"]},
        {"extra_info": {"question": ["q"]}},
        {"extra_info": {"question": 7}},
    ],
)
def test_what_a_rollout_does_not_need_is_no_fault(tmp_path, changes):
    preflight.check_data(parquet(tmp_path / "a.parquet", **changes))


def test_another_agent_loop_needs_another_reward(tmp_path):
    config = agents(tmp_path / "a.parquet", [OURS], ["tool_agent", OURS])
    with pytest.raises(LaunchError, match=r"a-1.parquet has the agent_name tool_agent, whose rollouts the reward"):
        preflight.check_data(config)
    config.reward.reward_manager.name = "naive"
    preflight.check_data(config)


def test_missing_columns_are_named_with_those_found(tmp_path):
    with pytest.raises(LaunchError) as error:
        preflight.check_data(parquet(tmp_path / "a.parquet", reward_model=None))
    message = one_sentence(error)
    assert "lacks the column(s) reward_model" in message
    assert "it has data_source, prompt" in message


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.parquet", b"hello", "is neither Parquet nor JSON in UTF-8: it begins with 'hello'"),
        ("a.parquet", b"PAR1 and then nothing of the kind", "is a damaged Parquet file"),
        ("a.parquet", b'{"question": "q"}', "is JSON by its content: rename it"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("a.jsonl", b'{"a": 1}\n{"a": ', "line 2 is malformed JSON"),
        ("a.jsonl", b'{"a": "\\ud800"}', "cannot be loaded as verl loads it: JSON parse error: The surrogate pair"),
        ("a.jsonl", b"", "is empty"),
        ("a.csv", b"question,answer", "ends in none of .parquet, .json, .jsonl, by which verl tells what a file is"),
        ("a.parquet", None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    config = OmegaConf.create({"data": {"train_files": str(tmp_path / name), "val_files": []}})
    with pytest.raises(LaunchError) as error:
        preflight.check_data(config)
    message = one_sentence(error)
    assert message.startswith(f"data.train_files: {tmp_path}/{name}")
    assert complaint in message


def test_a_file_without_rows_is_named(tmp_path):
    pq.write_table(pa.Table.from_pylist([ROW]).slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(LaunchError, match=r"a\.parquet has no rows"):
        preflight.check_data(OmegaConf.create({"data": {"train_files": str(tmp_path / "a.parquet"), "val_files": []}}))


def test_a_pattern_means_what_it_means_to_verl(tmp_path):
    config = data_of(tmp_path / "a.parquet", [ROW], [ROW])
    config.data.train_files = str(tmp_path / "a*.parquet")
    preflight.check_data(config)


def test_files_that_are_not_read_here_are_not_checked():
    files = {"train_files": "hdfs://host/a.parquet", "val_files": ["hdfs://host/b.parquet"]}
    preflight.check_data(OmegaConf.create({"data": files}))
    own = {"train_files": "mine.bin", "val_files": "mine.bin", "custom_cls": {"path": "mine.py", "name": "Mine"}}
    preflight.check_data(OmegaConf.create({"data": own}))


def test_no_data_is_named():
    with pytest.raises(LaunchError) as error:
        preflight.check_data(OmegaConf.create({"data": {"train_files": None, "val_files": None}}))
    assert "data.train_files is not set" in one_sentence(error)
