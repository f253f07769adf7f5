"""The simulated endpoint as the official openai client sees it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI

from workflow_r1.world.server import Faults, RunningServer, SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World

KEY = "test-key"


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[RunningServer]:
    with running_server(SimulatedEndpoint(SimulatedLLM(world), api_key=KEY)) as server:
        yield server


@pytest.fixture
def server(running: RunningServer) -> Iterator[RunningServer]:
    running.endpoint.counters.clear()
    yield running
    running.endpoint.faults = Faults()


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


def complete(client: OpenAI, content: str = "who wrote it ?", model: str = MODEL_NAME, **options):  # type: ignore[no-untyped-def]
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], **options)


def test_a_completion_has_its_choices_and_counts_its_tokens(client: OpenAI, world: World) -> None:
    question = world.questions[0]
    completion = complete(client, question.text, n=3, seed=1)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {choice.message.content for choice in completion.choices} <= set(world.entities["person"])
    assert completion.model == MODEL_NAME
    assert completion.usage.prompt_tokens == len(question.text.split())
    assert completion.usage.completion_tokens == 3
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 3


def test_the_model_list_says_that_it_is_a_simulation(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == MODEL_NAME
    assert "simulat" in model.id
    assert "not a language model" in model.description


def test_a_wrong_key_is_refused_everywhere(server: RunningServer) -> None:
    with OpenAI(base_url=server.base_url, api_key="other", max_retries=0) as stranger:
        for call in (stranger.models.list, lambda: complete(stranger)):
            with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
                call()
    assert server.endpoint.counters == {"requests": 1, "unauthorized": 1}


def test_what_it_cannot_do_is_refused_and_not_faked(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=f"The only model here is {MODEL_NAME}"):
        complete(client, model="gpt")
    with pytest.raises(openai.BadRequestError, match="Streaming is not simulated"):
        complete(client, stream=True)
    with pytest.raises(openai.BadRequestError, match="The request does not fit"):
        complete(client, n=0)


@pytest.mark.parametrize(
    ("faults", "error", "status"),
    [
        (Faults(rate_limit=1), openai.RateLimitError, 429),
        (Faults(server_error=1), openai.InternalServerError, 500),
        (Faults(outage=True), openai.InternalServerError, 503),
    ],
)
def test_a_fault_has_its_status(
    client: OpenAI, server: RunningServer, faults: Faults, error: type[openai.APIStatusError], status: int
) -> None:
    server.endpoint.faults = faults
    with pytest.raises(error) as caught:
        complete(client)
    assert caught.value.status_code == status


def test_a_dropped_connection_is_a_connection_error(client: OpenAI, server: RunningServer) -> None:
    server.endpoint.faults = Faults(drop=1)
    with pytest.raises(openai.APIConnectionError):
        complete(client)


def test_broken_json_has_status_200_and_does_not_parse(client: OpenAI, server: RunningServer) -> None:
    server.endpoint.faults = Faults(broken_json=1)
    with pytest.raises(ValueError, match="Unterminated string"):
        complete(client)


def test_a_hanging_request_runs_into_the_clients_timeout(client: OpenAI, server: RunningServer) -> None:
    server.endpoint.faults = Faults(hang=1)
    with pytest.raises(openai.APITimeoutError):
        complete(client.with_options(timeout=0.2))
    assert server.endpoint.counters["hang"] == 1


def test_the_load_is_counted_and_requests_that_the_client_gave_up_are_over(llm: SimulatedLLM) -> None:
    endpoint = SimulatedEndpoint(llm, latency=0.1)
    with (
        running_server(endpoint) as server,
        ThreadPoolExecutor(4) as threads,
        OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        list(threads.map(lambda _: complete(client), range(8)))
        assert endpoint.load.max_in_flight == 4
        assert endpoint.load.max_per_minute == 8
        endpoint.faults = Faults(hang=1)
        for _ in range(6):
            with pytest.raises(openai.APITimeoutError):
                complete(client.with_options(timeout=0.2))
    assert endpoint.load.max_in_flight == 4
    assert endpoint.load.max_per_minute == 14


def test_faults_come_at_their_rates_and_are_counted(client: OpenAI, server: RunningServer) -> None:
    server.endpoint.faults = Faults(rate_limit=0.3, server_error=0.2)
    for _ in range(200):
        try:
            complete(client)
        except (openai.RateLimitError, openai.InternalServerError):
            continue
    counters = client.get("../counters", cast_to=dict)
    assert counters["requests"] == 200 == counters["ok"] + counters["rate_limit"] + counters["server_error"]
    assert 35 <= counters["rate_limit"] <= 85
    assert 20 <= counters["server_error"] <= 65


def test_faults_can_be_switched_over_http(client: OpenAI, server: RunningServer) -> None:
    client.put("../faults", body={"outage": True}, cast_to=dict)
    with pytest.raises(openai.InternalServerError, match="The simulated service is down"):
        complete(client)
    client.put("../faults", body={}, cast_to=dict)
    assert complete(client).choices


def test_latency_delays_every_reply(llm: SimulatedLLM) -> None:
    with (
        running_server(SimulatedEndpoint(llm, latency=0.2)) as server,
        OpenAI(base_url=server.base_url, api_key="any key will do without one set") as client,
    ):
        started = time.perf_counter()
        complete(client)
        assert time.perf_counter() - started >= 0.2


def test_a_taken_port_is_one_clear_sentence(server: RunningServer, llm: SimulatedLLM) -> None:
    port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
    with (
        pytest.raises(OSError, match=rf"Cannot listen on 127.0.0.1:{port} .*: choose another port, or 0 for a free"),
        running_server(SimulatedEndpoint(llm), port=port),
    ):
        pass


def test_stopping_frees_the_port_even_with_a_request_hanging(llm: SimulatedLLM) -> None:
    with running_server(SimulatedEndpoint(llm, faults=Faults(hang=1))) as server:
        port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
        client = OpenAI(base_url=server.base_url, api_key="k", max_retries=0, timeout=0.2)
        with client, pytest.raises(openai.APITimeoutError):
            complete(client)
    with running_server(SimulatedEndpoint(llm), port=port) as again:
        assert again.base_url.endswith(f":{port}/v1")
