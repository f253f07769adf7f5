"""Credit by turn: every estimator against numbers worked out by hand, its limits, and masks of all kinds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import close, masks, runs_of_ones

from workflow_r1.advantage import group_relative_advantages
from workflow_r1.credit import ESTIMATORS, Credit

# Three responses to one question. Turn rewards: 3, 1 (on the observation after it) and the outcome 4; 2 and the outcome
# 1, paid after the last token; the outcome 1, the part before the first turn included.
MASK = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]])
REWARDS = torch.tensor(
    [[0.0, 3.0, 0.0, 0.0, 1.0, 4.0], [2.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.5, 0.0, 0.0, 0.5, 0.0, 0.0]],
    dtype=torch.float64,
)
STATES = [["start", "found", "found"], ["start", "found"], ["start"]]


def by_turn(credit, *, rewards=REWARDS, mask=MASK, groups="aaa", by_std=False, **kwargs):
    """The advantages of the turns of each response, in order; no turn has two."""
    advantages = group_relative_advantages(rewards, mask, groups, credit=credit, normalise_by_std=by_std, **kwargs)
    assert not advantages[mask == 0].any()
    turns = kwargs.get("turn_mask", mask)
    values = [[row[run].unique().tolist() for run in runs_of_ones(m)] for row, m in zip(advantages, turns, strict=True)]
    assert all(len(turn) == 1 for response in values for turn in response)
    return [[turn[0] for turn in response] for response in values]


def test_the_outcome_is_all_that_was_earned():
    assert by_turn(Credit()) == [pytest.approx([4, 4, 4]), pytest.approx([-1, -1]), pytest.approx([-3])]


def test_turn_rewards_fall_on_their_own_turn_and_what_the_last_one_earned_on_all():
    # Outcomes 4, 1, 1: mean 2. Turn rewards 3, 1, 2: mean 2, standard deviation 1.
    assert by_turn(Credit("turn_rewards")) == [[2 + 1, 2 - 1, 2], [-1 + 0, -1], [-1]]
    scaled = by_turn(Credit("turn_rewards"), by_std=True)  # the outcomes are divided by sqrt(3)
    assert scaled[0] == pytest.approx([1.1547005 + 1, 1.1547005 - 1, 1.1547005], abs=1e-5)


def test_discounted_returns_are_compared_with_those_of_the_turns_of_that_number():
    # γ = 1/2. Returns: 3 + 1/2 + 4/4 = 4.5, 1 + 4/2 = 3 and 4; 2 + 1/2 = 2.5 and 1; 1.
    # First turns 4.5, 2.5, 1: mean 8/3; second turns 3, 1: mean 2; the third turn has none to be compared with.
    found = by_turn(Credit("discounted", discount=0.5))
    assert found == [pytest.approx([11 / 6, 1, 0]), pytest.approx([-1 / 6, -1]), pytest.approx([-5 / 3])]
    scaled = by_turn(Credit("discounted", discount=0.5), by_std=True)
    assert scaled[0][1] == pytest.approx(2**-0.5, abs=1e-5)


def test_zero_sum_credit_moves_between_the_turns_of_a_response():
    # Sums 8, 3, 1: mean 4. Credits 3, 1, 0 with mean 4/3, and 2, 0 with mean 1.
    found = by_turn(Credit("zero_sum", weight=0.3))
    assert found[0] == pytest.approx([4 + 0.3 * 5 / 3, 4 - 0.3 / 3, 4 - 0.3 * 4 / 3])
    assert found[1:] == [pytest.approx([-1 + 0.3, -1 - 0.3]), pytest.approx([-3])]


def test_anchors_compare_the_returns_of_turns_that_start_from_the_same():
    # γ = 1/2, returns as above. start: 4.5, 2.5, 1 with mean 8/3; found: 3, 4, 1 with mean 8/3.
    found = by_turn(Credit("anchors", discount=0.5, weight=2.0), states=STATES)
    assert found[0] == pytest.approx([4 + 2 * 11 / 6, 4 + 2 / 3, 4 + 2 * 4 / 3])
    assert found[1:] == [pytest.approx([-1 - 2 / 6, -1 - 2 * 5 / 3]), pytest.approx([-3 - 2 * 5 / 3])]


def test_a_state_that_nobody_shares_or_that_belongs_to_another_question_adds_nothing():
    alone = [["start", "a", "b"], ["start", "c"], ["start"]]
    found = by_turn(Credit("anchors"), states=alone, groups="abc")
    assert found == by_turn(Credit(), groups="abc")
    assert by_turn(Credit("anchors"), states=alone)[0][1:] == by_turn(Credit())[0][1:]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_turn_that_was_rejected_keeps_what_it_earned_and_is_compared_with_nothing(name):
    """The second of three turns is taken away: its reward falls neither on the first nor out of the sums."""
    turns, rejected = torch.tensor([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1]]), torch.tensor([[1, 0, 0, 0, 1], [1, 0, 1, 0, 1]])
    rewards = torch.tensor([[1.0, 0.0, -8.0, 0.0, 1.0], [2.0, 0.0, 5.0, 0.0, 0.0]], dtype=torch.float64)
    expected = {
        "outcome": [-6.5, 0.0, -6.5],
        "turn_rewards": [0.5 + 1 - 8 / 3, 0.0, 0.5],  # 1, 2 and 5, without the -8
        "discounted": [-6.5, 0.0, 0.5],
        "zero_sum": [-6.5 + 1 - 1 / 2, 0.0, -6.5 - 1 / 2],
        "anchors": [-6.5 - 6.5, 0.0, -6.5 + 0.5],
    }[name]
    found = group_relative_advantages(
        *(rewards, rejected, "aa"),
        credit=Credit(name),
        turn_mask=turns,
        states=[["s", "t", "u"]] * 2,
        normalise_by_std=False,
    )
    close(found[0, [0, 2, 4]], expected)


CREDITS = [Credit(name, discount, 0.7) for name in ESTIMATORS for discount in (0.0, 0.9, 1.0)]


@st.composite
def batches(draw):
    """A mask, what a rejection leaves of it, rewards anywhere, groups, and few states."""
    mask = torch.tensor(draw(masks()))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    kept = mask.clone()
    states = []
    for row, rest in zip(mask, kept, strict=True):
        turns = runs_of_ones(row)
        for turn in turns:
            if torch.rand(1, generator=generator) < 0.2:
                rest[turn] = False
        states.append(torch.randint(3, (len(turns),), generator=generator).tolist())
    rewards = torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    groups = torch.randint(2, (len(mask),), generator=generator)
    options = {"turn_mask": mask, "states": states, "normalise_by_std": draw(st.booleans())}
    return rewards, kept, groups, options


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(CREDITS))
def test_every_turn_has_one_advantage_and_what_is_not_trained_on_none(batch, credit):
    rewards, kept, groups, options = batch
    advantages = group_relative_advantages(rewards, kept, groups, credit=credit, **options)
    assert advantages.isfinite().all()
    assert not advantages[~kept].any()
    for row, mask in zip(advantages, kept, strict=True):
        assert all(len(row[turn].unique()) == 1 for turn in runs_of_ones(mask))


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(CREDITS), st.integers(1, 3))
def test_neither_padding_nor_the_order_of_responses_matters(batch, credit, padding):
    rewards, kept, groups, options = batch
    turns, states = options.pop("turn_mask"), options.pop("states")
    plain = group_relative_advantages(rewards, kept, groups, credit=credit, turn_mask=turns, states=states, **options)
    padded = group_relative_advantages(
        *(torch.nn.functional.pad(x, (0, padding)).flip(0) for x in (rewards, kept)),
        groups.flip(0),
        credit=credit,
        turn_mask=torch.nn.functional.pad(turns, (0, padding)).flip(0),
        states=states[::-1],
        **options,
    )
    close(padded.flip(0)[:, : plain.shape[1]], plain)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(sorted(ESTIMATORS)))
def test_where_nothing_is_said_by_turn_every_credit_is_the_outcome(batch, name):
    """One turn a response, no weight, or no reward before the last turn."""
    rewards, kept, groups, options = batch
    outcome = group_relative_advantages(rewards, kept, groups, **options)
    if name in ("zero_sum", "anchors"):
        close(group_relative_advantages(rewards, kept, groups, credit=Credit(name, weight=0.0), **options), outcome)
    if name in ("turn_rewards", "zero_sum"):
        at_the_end = torch.zeros_like(rewards).index_add(1, torch.tensor([rewards.shape[1] - 1]), rewards[:, :1])
        found, outcome = (
            group_relative_advantages(at_the_end, kept, groups, credit=credit, **options)
            for credit in (Credit(name), Credit())
        )
        close(found, outcome)
    if name != "anchors":
        one_turn = kept.any(dim=1, keepdim=True).expand_as(kept)
        options["turn_mask"], options["states"] = one_turn, None
        found, outcome = (
            group_relative_advantages(rewards, one_turn, groups, credit=credit, **options)
            for credit in (Credit(name, 0.5), Credit())
        )
        close(found, outcome)


def test_with_no_discount_and_as_many_turns_the_return_of_an_outcome_is_the_outcomes_advantage():
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1]])
    rewards = torch.tensor([[0, 0, 0, 1.0], [0, 0, 0, 0], [0, 0, 0, 0.25]], dtype=torch.float64)
    found, outcome = (
        group_relative_advantages(rewards, mask, "aaa", credit=credit) for credit in (Credit("discounted"), Credit())
    )
    close(found, outcome)
    myopic = by_turn(Credit("discounted", discount=0.0), rewards=rewards, mask=mask)
    assert [turns[0] for turns in myopic] == [0, 0, 0]  # what a first turn itself earned


@settings(max_examples=60, deadline=None)
@given(batches(), st.floats(0, 3))
def test_zero_sum_credit_sums_to_nothing_in_a_response(batch, weight):
    rewards, kept, groups, options = batch
    credited, outcome = (
        group_relative_advantages(rewards, kept, groups, credit=credit, **options)
        for credit in (Credit("zero_sum", weight=weight), Credit())
    )
    for row, mask in zip(credited - outcome, kept, strict=True):
        assert sum(float(row[turn[0]]) for turn in runs_of_ones(mask)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("states", [None, [["s"]] * 3, STATES[:2], [*STATES[:2], []]])
def test_states_that_are_not_there_are_said(states):
    with pytest.raises(ValueError, match=r"(compares turns by the state|Every turn needs one state)"):
        by_turn(Credit("anchors"), states=states)


def test_what_is_not_trained_on_needs_no_states_and_may_have_earned_nan():
    mask = torch.cat([MASK, torch.zeros(1, 6)])
    rewards = torch.cat([REWARDS, torch.full((1, 6), torch.nan)])
    for name in ESTIMATORS:
        found = group_relative_advantages(rewards, mask, "aaaa", credit=Credit(name), states=[*STATES, ["a"] * 5])
        close(found[:3], group_relative_advantages(REWARDS, MASK, "aaa", credit=Credit(name), states=STATES))
        assert not found[3].any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gsspo_credit": "gae"}, "gsspo_credit=gae is not known: take outcome, turn_rewards, discounted, "),
        ({"gsspo_discount": 1.5}, "gsspo_discount=1.5 has to be a number from 0 to 1"),
        ({"gsspo_discount": float("nan")}, "gsspo_discount=nan has"),
        ({"gsspo_discount": True}, "gsspo_discount=True has"),
        ({"gsspo_credit_weight": -1}, "gsspo_credit_weight=-1 has to be a number of at least 0"),
        ({"gsspo_information_gain": float("inf")}, "gsspo_information_gain=inf has to be a number of at least 0"),
        ({"gsspo_credit_weight": "much"}, "gsspo_credit_weight=much has"),
    ],
)
def test_a_credit_that_cannot_be_is_one_sentence_that_names_the_setting(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Credit.of(settings)


def test_the_default_is_the_outcome():
    assert Credit.of({"gamma": 0.5, "gsspo_credit": None}) == Credit("outcome")
