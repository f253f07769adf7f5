"""A path is a path in Hydra's grammar, in verl's reader of data and in the terminal, whatever characters it has."""

import importlib.machinery
import shutil
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import verl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset

from workflow_r1.data.training import load_training_file
from workflow_r1.runs import recipe
from workflow_r1.runs.recipe import EMBEDDED, LaunchError, compose_recipe, quoted, with_quoted_paths
from workflow_r1.runs.train import _of_the_trainer_alone, _output_dir

NASTY = "-数据 (1), a=b 'c\"d#&[x]$y%d{z}\\w🙂;|<>!~*?:@+"
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1)
HARD = st.text(st.sampled_from("\\'\"${}[](),=:#& \t"), min_size=1)


@given(st.one_of(NAMES, HARD).filter(lambda name: "${" not in name))
def test_any_path_survives_hydras_grammar_and_omegaconf(name):
    parser = OverridesParser.create()
    assert parser.parse_override(f"a={quoted(name)}").value() == name
    assert parser.parse_override(f"a=[{quoted('/' + name)},{quoted(name)}]").value() == ["/" + name, name]
    assert OmegaConf.create({"a": name}).a == name


def test_the_recipes_compose_in_any_folder(tmp_path, monkeypatch):
    home = tmp_path / NASTY
    shutil.copytree(Path(verl.__file__).parent / "trainer" / "config", home / "verl" / "trainer" / "config")
    spec = importlib.machinery.ModuleSpec("verl", None, is_package=True)
    spec.submodule_search_locations = [str(home / "verl")]
    shutil.copytree(recipe.CONFIG_DIR, home / "ours")
    monkeypatch.setattr(recipe.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(recipe, "CONFIG_DIR", home / "ours")
    config = compose_recipe(EMBEDDED, [f"trainer.default_local_dir={quoted(home / 'out')}"])
    assert config.trainer.default_local_dir == str(home / "out")
    assert config.workflow_r1.run_dir == str(home / "out" / "operators")  # by an interpolation


def test_verl_reads_data_from_any_folder_and_none_beside_it(tmp_path):
    """datasets takes the name of a file for a pattern, in which `[x]` is an x."""
    folder, other = tmp_path / NASTY, tmp_path / NASTY.replace("[x]", "x")
    for place, question in ((folder, "right"), (other, "wrong")):
        place.mkdir()
        pq.write_table(pa.table({"prompt": [question]}), place / "train.parquet")
    files = f"[{quoted(folder / 'train.parquet')}]"
    config = compose_recipe(EMBEDDED, [f"data.train_files={files}", f"data.val_files={files}"])
    seen_by_verl = compose_recipe(EMBEDDED, list(_of_the_trainer_alone(config, folder)))
    assert list(config.data.train_files) == [str(folder / "train.parquet")]
    data = OmegaConf.merge(seen_by_verl.data, {"filter_overlong_prompts": False})
    assert RLHFDataset(data.train_files, tokenizer=None, config=data).dataframe["prompt"][:] == ["right"]
    assert load_training_file(config.data.train_files[0])["prompt"][:] == ["right"]


def test_a_pattern_on_purpose_stays_one(tmp_path):
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "part-1.parquet")
    config = compose_recipe(EMBEDDED, [f"data.train_files='{tmp_path}/part-*.parquet'", "data.val_files=a"])
    seen_by_verl = compose_recipe(EMBEDDED, list(_of_the_trainer_alone(config, tmp_path)))
    assert list(seen_by_verl.data.train_files) == [f"{tmp_path}/part-*.parquet"]


@pytest.mark.parametrize(
    "path",
    [
        *("/数据/run", "/data/run (1)", "/a, b/c", "./a#b", "../[x]&", "/a'b", "/🙂", "~/Köln\\(2)"),
        *("数据/x.parquet", "data (1)/x", "s3://b/x?y=1&z=2", "train (最终).jsonl"),
    ],
)
def test_a_path_on_the_command_line_needs_no_second_quotes(path):
    (override,) = with_quoted_paths([f"trainer.default_local_dir={path}"])
    assert OverridesParser.create().parse_override(override).value() == path


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m.content }}{% endfor %}", "{{ 'a' }}\n\\n", "{# b #}c"]
)
def test_a_chat_template_on_the_command_line_needs_no_second_quotes_either(template):
    (override,) = with_quoted_paths([f"actor_rollout_ref.model.custom_chat_template={template}"])
    assert OverridesParser.create().parse_override(override).value() == template


def test_paths_in_a_list_need_no_second_quotes_either():
    (override,) = with_quoted_paths(["data.train_files=[/d/a (1)/x, 数/x]"])
    assert OverridesParser.create().parse_override(override).value() == ["/d/a (1)/x", "数/x"]


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "a=[1,2]",
        "a={x: 1}",
        "a='b (1)'",
        "a=",
        "data.train_files=[a",
        "trainer.nnodes",
        "a=/plain/path",
        "a='/quoted (1)'",
        "a=/x/${b}",
        "+a=b",
        "a=x,y",
    ],
)
def test_other_overrides_stay_as_they_were_written(override):
    assert with_quoted_paths([override]) == [override]


def test_a_path_that_verl_would_take_for_a_reference_is_refused():
    with pytest.raises(LaunchError, match=r"The path '/a/\$\{b\}' holds '\$\{', .*: rename it\.$"):
        quoted("/a/${b}")


@pytest.mark.parametrize(
    "template", ["{{ x }} costs ${y}", "{% for m in messages %}" * 50 + "${ x }", "{%- set a = '${' %}", "${{ x }}"]
)
def test_a_chat_template_that_verl_would_take_for_a_reference_is_refused_as_one(template):
    with pytest.raises(
        LaunchError, match=r"^The chat template at .{,60} holds '\$\{', .*: write \{\{ '\$' \}\}\{ there"
    ):
        quoted(template)
    jinja = jinja2.Environment()
    assert jinja.from_string("{{ '$' }}{y}{{ '$' ~ '{' }}").render() == "${y}${"


def test_a_setting_that_others_refer_to_is_the_one_that_is_named():
    with pytest.raises(
        LaunchError, match=r"^trainer\.project_name holds a reference .* \(Interpolation key 'y' not found\)"
    ):
        compose_recipe(EMBEDDED, ["trainer.project_name=${y}"])


@pytest.mark.parametrize("reference", ["${oc.env:NO_SUCH_VARIABLE}", "{{ x }} ${y.z}"])
def test_a_reference_that_leads_nowhere_names_its_setting(reference):
    with pytest.raises(
        LaunchError, match=r"^actor_rollout_ref\.model\.custom_chat_template holds a reference"
    ) as error:
        compose_recipe(EMBEDDED, [f"actor_rollout_ref.model.custom_chat_template='{reference}'"])
    assert str(error.value).isprintable()


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    def output_dir(path: object) -> Path:
        return _output_dir(OmegaConf.create({"trainer": {"default_local_dir": str(path)}}))

    assert output_dir(tmp_path / NASTY) == tmp_path / NASTY
    (tmp_path / "file").touch()
    for path, reason in [
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "x", "Not a directory"),
        ("/proc/x", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(LaunchError, match=rf"trainer\.default_local_dir is .*\({reason}.*\): name another folder"):
            output_dir(path)
