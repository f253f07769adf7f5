import io

import pytest
import support.faulty_endpoint as c
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.operators import OperatorResult, UsageMeter
from workflow_r1.services.usage import Latencies, usage_table
from workflow_r1.system.terminal import TextConsole


async def test_a_pool_counts_per_operator_and_prices_the_tokens(endpoint, make_pool):
    endpoint.script.extend([c.status(500), c.reply("no tag", 100, 20), c.result("Paris")])
    pool = make_pool(prompt_price=2.0, completion_price=8.0)
    result = await pool.call("AnswerGenerate", "q")
    await pool.call("Review", "q")
    await pool.call("Nonsense", "q")
    usage = pool.usage.operators
    answer = usage["AnswerGenerate"]
    assert (answer.calls, answer.requests, answer.retries, answer.reasks) == (1, 3, 1, 1)
    assert (answer.prompt_tokens, answer.completion_tokens) == (110, 25)
    assert answer.cost == result.cost == pytest.approx((110 * 2.0 + 25 * 8.0) / 1e6)
    assert (usage["Review"].rejected, usage["WarningOp"].rejected) == (1, 1)
    assert pool.usage.total.calls == 3


async def test_a_failed_call_is_counted_as_failed(endpoint, make_pool):
    endpoint.behaviour = c.status(401)
    pool = make_pool()
    await pool.call("AnswerGenerate", "q")
    assert pool.usage.total.failed == 1


def test_metrics_are_flat_figures_per_operator_and_in_total():
    results = [OperatorResult("Review", "", seconds=second, requests=1, prompt_tokens=5) for second in (1.0, 2.0, 3.0)]
    results += [OperatorResult("Custom", "", failed=True, requests=2, seconds=10.0)]
    metrics = UsageMeter.of(results).metrics()
    assert metrics["operators/Review/calls"] == 3
    assert metrics["operators/Review/prompt_tokens"] == 15
    assert metrics["operators/Review/seconds_p50"] == pytest.approx(2.0, rel=0.03)
    assert metrics["operators/total/seconds_p95"] == pytest.approx(10.0, rel=0.03)
    assert metrics["operators/total/failed"] == 1
    assert all(isinstance(figure, int | float) for figure in metrics.values())


def test_a_call_without_a_request_has_no_latency():
    metrics = UsageMeter.of([OperatorResult("Review", "", seconds=1.0, cache_hits=1)]).metrics()
    assert metrics["operators/Review/seconds_p50"] == 0.0


results = st.lists(
    st.builds(
        OperatorResult,
        operator=st.sampled_from(["Review", "Custom"]),
        text=st.just(""),
        failed=st.booleans(),
        seconds=st.floats(0, 1e4),
        requests=st.integers(0, 3),
        prompt_tokens=st.none() | st.integers(0, 1000),
        cost=st.none() | st.integers(0, 8),
    )
)


@given(results, results)
def test_meters_of_two_processes_add_up_after_a_trip_through_json(first, second):
    merged = UsageMeter.model_validate_json(UsageMeter.of(first).model_dump_json())
    merged.merge(UsageMeter.model_validate_json(UsageMeter.of(second).model_dump_json()))
    assert merged == UsageMeter.of(first + second)


@given(st.lists(st.floats(1e-5, 1e4), min_size=1), st.sampled_from([50, 95, 99]))
def test_percentiles_are_right_to_the_width_of_a_bucket(seconds, percent):
    latencies = Latencies()
    for second in seconds:
        latencies.add(second)
    rank = -(-percent * len(seconds) // 100)
    assert latencies.percentile(percent) == pytest.approx(sorted(seconds)[rank - 1], rel=0.026)


@pytest.mark.parametrize(("uncounted", "tokens", "cost"), [(0, "30", "0.0200"), (1, "≥ 30", "≥ 0.0200")])
def test_the_table_tells_what_is_known_from_what_is_at_least_so(uncounted, tokens, cost):
    counted = [OperatorResult("Review", "", prompt_tokens=10, completion_tokens=5, cost=0.01)] * 2
    unknown = OperatorResult("Review", "", prompt_tokens=None, completion_tokens=None, cost=None)
    assert last_row(UsageMeter.of([*counted, *[unknown] * uncounted])) == (tokens, cost)
    assert last_row(UsageMeter.of([unknown])) == ("–", "–")


def last_row(meter):
    file = io.StringIO()
    TextConsole(file=file, width=200).print(usage_table(meter))
    *_, tokens, _seconds, cost = file.getvalue().splitlines()[-1].replace("≥ ", "≥").split()
    return tokens.replace("≥", "≥ "), cost.replace("≥", "≥ ")
