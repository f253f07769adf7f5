import re

import pytest
from omegaconf import OmegaConf

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.operators import OperatorConfigError

ENVIRON = {
    "OPERATOR_BASE_URL": "http://localhost:1/v1",
    "OPERATOR_API_KEY": "sk-secret",
    "OPERATOR_MODEL_NAME": "m",
}


def parse(section):
    return WorkflowConfig.parse(OmegaConf.create({"workflow_r1": section} if section is not None else {}))


def test_a_configuration_without_our_section_is_all_defaults():
    config = parse(None)
    assert config.limits.max_calls == 20
    assert config.reward.function == "workflow_r1.reward:exact_match_reward"


def test_every_setting_that_does_not_fit_is_named():
    with pytest.raises(ConfigError) as error:
        parse({"max_lost": 3, "limits": {"max_call": 3}, "reward": {"exact_match": 1.0}})
    message = str(error.value)
    assert "workflow_r1.max_lost: there is no such setting" in message
    assert "workflow_r1.limits.max_call: there is no such setting" in message
    assert "workflow_r1.reward.exact_match: there is no such setting" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("endings", "sentence"),
    [
        ({"answerd": "masked"}, "workflow_r1.endings.answerd: there is no such setting"),
        ({"malformed": "dropped"}, "workflow_r1.endings.malformed: Input should be 'trained', 'masked' or 'shaped'"),
        ({"operator_failure": "trained"}, "workflow_r1.endings.operator_failure: Input should be 'masked'"),
        ({"length_limit": "shaped"}, "workflow_r1.endings: Value error, cache_length and at least one ending that is"),
        ({"cache_length": 9}, "workflow_r1.endings: Value error, cache_length and at least one ending that is shaped"),
        ({"length_limit": "shaped", "cache_length": 0}, "workflow_r1.endings.cache_length: Input should be greater"),
        ("masked", "workflow_r1.endings: Input should be a valid dictionary"),
    ],
)
def test_an_ending_that_cannot_be_is_refused_by_name(endings, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        parse({"endings": endings})


def test_the_sections_endpoint_wins_over_the_environment_and_null_does_not():
    config = parse({"operators": {"base_url": "http://localhost:2/v1", "model": None}})
    settings = config.operator_pool(ENVIRON).settings
    assert (settings.base_url, settings.model) == ("http://localhost:2/v1", "m")


def test_the_pool_offers_the_operators_that_are_named():
    pool = parse({"pool": {"names": ["Review", "Revise"]}}).operator_pool(ENVIRON)
    assert [spec.name for spec in pool.specs] == ["Review", "Revise"]


def test_an_unset_endpoint_is_named():
    with pytest.raises(OperatorConfigError, match="OPERATOR_BASE_URL"):
        parse(None).operator_pool({})
