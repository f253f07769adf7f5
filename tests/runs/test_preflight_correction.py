"""A rollout correction that verl cannot read is a sentence before the run, not an error in its first step."""

import pytest
from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.preflight import check_correction
from workflow_r1.runs.recipe import LaunchError

SECTION = "algorithm.rollout_correction"


def correction(**changed) -> DictConfig:
    verls = {"rollout_is": None, "rollout_is_threshold": 2.0, "rollout_rs": None, "rollout_rs_threshold": None}
    verls["bypass_mode"] = False
    return OmegaConf.create({"algorithm": {"rollout_correction": {**verls, **changed}}})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        *[
            ({"rollout_is_threshold": bad}, f"rollout_is_threshold={bad} has to be")
            for bad in (-1, 0, -0.5, True, None)
        ],
        *[({"rollout_is_threshold": bad}, "or two as 0.5_2.0") for bad in ("", "high", "2_0.5", "-1_2", "nan", "0_2")],
        *[
            ({"rollout_rs": bad, "rollout_rs_threshold": 2.0}, f"rollout_rs={bad} is not known: take of turn_mean_k1")
            for bad in ("seq_max_k1", "seq_k1", "sequence", "geometric", "seq_mean_k1;seq_sum_k1", "", ",", True, 1)
        ],
        ({"rollout_rs": "seq_mean_k1,seq_men_k3", "rollout_rs_threshold": 2.0}, "is not known"),
        *[
            ({"rollout_rs": "seq_mean_k3", "rollout_rs_threshold": bad}, f"rollout_rs_threshold={bad} does not fit")
            for bad in (None, 0, -1, "0.5_2.0", "1,2", "", "high", True)
        ],
        *[
            ({"rollout_rs": "seq_sum_k1", "rollout_rs_threshold": bad}, "at least 1, or two as 0.5_2.0")
            for bad in (0.5, "2.0_0.5", "0_2", "1_x")
        ],
        ({"rollout_rs": "seq_sum_k1,seq_max_k2,seq_max_k3", "rollout_rs_threshold": "2,2"}, "does not fit"),
        ({"rollout_rs_threshold": 2.0}, "rollout_rs_threshold=2.0 rejects nothing without"),
        ({"bypass_mode": True, "rollout_is": "turn"}, "rollout_is=turn corrects nothing with"),
        (
            {"bypass_mode": True, "rollout_rs": "seq_max_k3", "rollout_rs_threshold": 1},
            "rollout_rs=seq_max_k3 corrects",
        ),
    ],
)
def test_what_verl_cannot_read_is_refused_by_name(settings, sentence):
    with pytest.raises(LaunchError) as error:
        check_correction(correction(**settings))
    assert sentence in str(error.value)
    assert str(error.value).startswith(f"{SECTION}.")
    assert "\n" not in str(error.value)


READ = [
    {"bypass_mode": True},
    {"rollout_is_threshold": "0.5_2.0"},
    {"rollout_is_threshold": "3"},
    {"rollout_is_threshold": 5},
    {"rollout_rs": "seq_mean_k1", "rollout_rs_threshold": "0.9_1.1"},
    {"rollout_rs": "seq_mean_k1,seq_max_k3", "rollout_rs_threshold": 2.0},
    {"rollout_rs": "seq_mean_k1, seq_max_k3", "rollout_rs_threshold": "0.9_1.1, 4"},
    {"rollout_rs": "token_k1", "rollout_rs_threshold": 2.0},
    {"rollout_rs": "turn_mean_k1,any_turn_max_k3", "rollout_rs_threshold": "0.9_1.1,4"},
]


@pytest.mark.parametrize("settings", READ)
def test_what_verl_reads_passes(settings):
    check_correction(correction(**settings))


def test_the_options_are_verls_and_what_passes_is_read_by_verl():
    from verl.trainer.ppo import rollout_corr_helper as verls

    from workflow_r1.runs.preflight import correction as ours
    from workflow_r1.verl_plugin.rollout_correction import REJECTIONS

    by_response = {option for option in ours._REJECTIONS if option.startswith("seq_")}
    assert by_response | {*ours._OF_TOKENS} == verls.SUPPORTED_ROLLOUT_RS_OPTIONS
    assert all(REJECTIONS.fullmatch(option) for option in {*ours._REJECTIONS} - by_response)
    for settings in READ:
        if "rollout_rs" in settings:
            options = [option.strip() for option in settings["rollout_rs"].split(",")]
            assert len(verls._parse_rollout_rs_thresholds(options, settings["rollout_rs_threshold"])) == len(options)
        elif "rollout_is_threshold" in settings:
            assert verls._parse_rollout_is_threshold(settings["rollout_is_threshold"])[0] > 0
