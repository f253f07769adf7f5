"""A number or a name that verl would stumble over is a sentence before the run, whatever it is."""

import pytest
from omegaconf import OmegaConf

from workflow_r1.runs.preflight import check_numbers
from workflow_r1.runs.preflight.numbers import CANDIDATES, CHOICES, COUNTS, COUNTS_OR_NULL, FILES, RANGES
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, LaunchError, compose_recipe

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@pytest.fixture(scope="module")
def embedded():
    return compose_recipe(EMBEDDED, [])


def refusal(config, name, value):
    before = OmegaConf.select(config, name)
    OmegaConf.update(config, name, value, force_add=True)
    try:
        with pytest.raises(LaunchError) as error:
            check_numbers(config)
    finally:
        OmegaConf.update(config, name, before, force_add=True)
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("recipe", [EMBEDDED, REFERENCE])
def test_the_recipes_pass(recipe):
    check_numbers(compose_recipe(recipe, []))


def test_what_is_no_count_is_named(embedded):
    for name in (*COUNTS, *COUNTS_OR_NULL):
        for value in (0, -1, 1.5, True, "many", *([None] if name in COUNTS else [])):
            assert "is no whole number of at least 1" in refusal(embedded, name, value)


def test_what_is_out_of_range_is_named(embedded):
    for name, (low, high) in RANGES.items():
        for value in (low, low - 1, high + 1, None, "much"):
            if value != float("inf"):
                assert "has to be a number above" in refusal(embedded, name, value)
    for name in ("clip_ratio", "clip_ratio_low", "clip_ratio_high"):
        assert "at least 0" in refusal(embedded, f"{ACTOR}.{name}", -0.1)


@pytest.mark.parametrize("name", CANDIDATES)
def test_how_many_tokens_are_chosen_from_is_a_count_or_all(embedded, name):
    for value in (-2, 1.5, True, None, "many"):
        assert "is no number of tokens to choose from" in refusal(embedded, name, value)
    for value in (-1, 0, 20):
        OmegaConf.update(embedded, name, value)
        check_numbers(embedded)
    OmegaConf.update(embedded, name, -1)


def test_unknown_choices_files_and_libraries_are_named(embedded, tmp_path):
    for name in CHOICES:
        assert "is not known: take" in refusal(embedded, name, "foo")
    for name in FILES:
        assert "is no file" in refusal(embedded, name, str(tmp_path / "none.py"))
    assert "names no_library" in refusal(embedded, "actor_rollout_ref.model.external_lib", "no_library.models")


@pytest.mark.parametrize("name", [f"{ACTOR}.ulysses_sequence_parallel_size", f"{ROLLOUT}.tensor_model_parallel_size"])
def test_parallel_sizes_that_do_not_divide_the_gpus_are_named(embedded, name):
    assert "does not divide the 1 GPU(s)" in refusal(embedded, name, 2)
