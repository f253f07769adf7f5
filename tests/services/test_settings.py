import pytest
import yaml

from workflow_r1.operators import OperatorConfigError, OperatorPool, OperatorSettings

ENVIRON = {
    "OPERATOR_BASE_URL": "https://llm.example/v1/",
    "OPERATOR_API_KEY": "sk-never-to-be-seen",
    "OPERATOR_MODEL_NAME": "small",
}


def test_the_environment_names_the_endpoint_and_overrides_win():
    settings = OperatorSettings.from_env(ENVIRON, model="large", max_retries=1, base_url=None)
    assert (settings.base_url, settings.model, settings.max_retries) == ("https://llm.example/v1", "large", 1)
    assert settings.api_key.get_secret_value() == "sk-never-to-be-seen"


@pytest.mark.parametrize("name", ENVIRON)
def test_an_unset_variable_is_named(name):
    with pytest.raises(OperatorConfigError, match=rf"^{name} is not set: .*\.$"):
        OperatorPool.from_env({key: value for key, value in ENVIRON.items() if key != name})


def test_all_unset_variables_are_named_in_one_sentence():
    with pytest.raises(OperatorConfigError, match=r"^OPERATOR_BASE_URL, OPERATOR_API_KEY, OPERATOR_MODEL_NAME are not"):
        OperatorSettings.from_env({})


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "localhost:8000/v1",
        "file:///etc/passwd",
        "http://",
        "http://host:99999/v1",
        "http://user:pass@host/v1",
        "http://host/v1?key=1",
        "http://[::1/v1",
    ],
)
def test_a_base_url_that_is_not_plain_http_is_refused_without_being_repeated(url):
    with pytest.raises(OperatorConfigError, match=r"^OPERATOR_BASE_URL must be an http:// or https:// URL") as caught:
        OperatorSettings(base_url=url, api_key="k", model="m")
    assert "pass" not in str(caught.value)


def test_a_wrong_setting_is_named_without_its_value():
    with pytest.raises(
        OperatorConfigError, match=r"operators\.max_concurrency is wrong: Input should be greater than or equal"
    ):
        OperatorSettings.from_env(ENVIRON, max_concurrency=0)
    with pytest.raises(OperatorConfigError, match=r"workflow_r1\.operators\.api_key is wrong") as caught:
        OperatorSettings.from_env(ENVIRON, api_key=12345)
    assert "12345" not in str(caught.value)


def test_on_and_off_mean_what_yaml_makes_of_them():
    values = yaml.safe_load("[on, off, read]")
    assert values == [True, False, "read"]
    read = [OperatorSettings.from_env(ENVIRON, cache=value).cache for value in [*values, "on"]]
    assert read == ["on", "off", "read", "on"]


def test_the_key_is_not_shown():
    settings = OperatorSettings.from_env(ENVIRON)
    assert "sk-never" not in repr(settings) + str(settings) + settings.model_dump_json() + str(settings.model_dump())
