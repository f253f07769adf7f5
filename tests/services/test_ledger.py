import pytest

from workflow_r1.operators import Budget, OperatorConfigError, OperatorResult, RunLedger, read_ledger


@pytest.fixture
def make_ledger(tmp_path):
    return lambda **budget: RunLedger(tmp_path / "run" / "ledger.json", Budget(**budget))


def spend(ledger: RunLedger, calls: int = 1, **taken) -> None:
    for _ in range(calls):
        ledger.add(OperatorResult("Review", "", **taken))


def test_a_step_holds_what_came_since_the_last_one(make_ledger):
    ledger = make_ledger()
    spend(ledger, 3, prompt_tokens=10)
    assert ledger.take_step().total.prompt_tokens == 30
    spend(ledger, 2, prompt_tokens=10)
    assert ledger.take_step().total.calls == 2
    assert ledger.take_step().total.calls == 0
    assert ledger.total.total.calls == 5


def test_a_resumed_run_goes_on_counting(make_ledger):
    ledger = make_ledger(max_calls=5)
    spend(ledger, 4)
    ledger.take_step()
    resumed = make_ledger(max_calls=5)
    assert resumed.exceeded() is None
    spend(resumed)
    assert resumed.exceeded() is not None
    assert resumed.take_step().total.calls == 1


@pytest.mark.parametrize("setting", ["max_tokens", "max_cost"])
def test_a_budget_of_what_the_endpoint_does_not_count_stops_the_run_after_a_step(make_ledger, setting):
    ledger = make_ledger(**{setting: 1_000_000})
    spend(ledger, 5, prompt_tokens=None, completion_tokens=None, cost=None)
    spend(ledger, 5, prompt_tokens=10, completion_tokens=5, cost=0.1)
    ledger.take_step()
    assert ledger.exceeded() is None  # half of the calls were counted
    spend(ledger, 3, prompt_tokens=None, completion_tokens=None, cost=None)
    ledger.take_step()
    assert ledger.exceeded() == (
        f"workflow_r1.budget.{setting} cannot be kept: the operators' endpoint did not count the tokens of 3 of the "
        "last step's 3 calls. Set workflow_r1.budget.max_calls instead."
    )


def test_a_budget_of_calls_needs_no_tokens(make_ledger):
    ledger = make_ledger(max_calls=10)
    spend(ledger, 9, prompt_tokens=None, completion_tokens=None, cost=None)
    ledger.take_step()
    assert ledger.exceeded() is None


def test_a_sum_that_lacks_calls_is_at_least_what_it_is(make_ledger):
    ledger = make_ledger(max_tokens=30)
    spend(ledger, 1, prompt_tokens=None, completion_tokens=None)
    spend(ledger, 2, prompt_tokens=10, completion_tokens=5)
    ledger.take_step()
    assert "(at least 30 operator tokens spent)" in (ledger.exceeded() or "")


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"max_calls": 4}, "(4 operator calls spent): raise workflow_r1.budget.max_calls (4) to go on."),
        ({"max_tokens": 6000}, "(6,000 operator tokens spent): raise workflow_r1.budget.max_tokens (6,000) to go on."),
        ({"max_cost": 1.5}, "(2.00 US dollars spent): raise workflow_r1.budget.max_cost (1.5) to go on."),
    ],
)
def test_a_budget_that_is_used_up_is_one_clear_sentence(make_ledger, budget, sentence):
    ledger = make_ledger(**budget)
    spend(ledger, 2, prompt_tokens=1000, completion_tokens=500, cost=0.5)
    assert ledger.exceeded() is None
    spend(ledger, 2, prompt_tokens=1000, completion_tokens=500, cost=0.5)
    assert ledger.exceeded() == f"The run has used up its budget {sentence}"


def test_a_step_whose_calls_mostly_fail_stops_the_run_and_says_why(make_ledger):
    ledger = make_ledger(max_failed_fraction=0.5)
    spend(ledger, 100)
    ledger.take_step()
    spend(ledger, 10)
    spend(ledger, 10, failed=True, error="The operator endpoint http://x answered 503.")
    spend(ledger, 30, rejected=True)  # the policy's own mistakes say nothing about the endpoint
    ledger.take_step()
    assert ledger.exceeded() is None
    spend(ledger, 9)
    spend(ledger, 11, failed=True, error="The operator endpoint http://x answered 503.")
    ledger.take_step()
    assert ledger.exceeded() == (
        "11 of 20 operator calls of the last step failed, more than the 50% of workflow_r1.budget.max_failed_fraction: "
        "The operator endpoint http://x answered 503."
    )


def test_a_few_failed_calls_stop_nothing(make_ledger):
    ledger = make_ledger()
    spend(ledger, 19, failed=True)
    ledger.take_step()
    assert ledger.exceeded() is None


def test_without_bounds_nothing_stops_a_run(make_ledger):
    ledger = make_ledger(max_failed_fraction=None)
    spend(ledger, 100, failed=True, cost=1e6)
    ledger.take_step()
    assert ledger.exceeded() is None


def test_a_broken_ledger_is_not_taken_for_an_empty_one(tmp_path):
    assert read_ledger(tmp_path / "none.json").total.calls == 0
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(OperatorConfigError, match=r"^The ledger .* cannot be read: move it away to count from zero\.$"):
        RunLedger(tmp_path / "ledger.json", Budget())
