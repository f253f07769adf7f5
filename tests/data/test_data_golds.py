"""Gold answers: each value has one meaning everywhere, or is refused with what is wrong."""

import contextlib
import datetime
import time
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.data.errors import Reason, RowError
from workflow_r1.data.golds import read_golds
from workflow_r1.data.verl_rows import row_golds

READ = [
    ("Paris", ("Paris",)),
    (["Paris", " Paris ", "City of Paris"], ("Paris", "City of Paris")),
    ([None, "", "  ", float("nan"), "Paris"], ("Paris",)),
    (1987, ("1987",)),
    (1987.0, ("1987",)),
    (-0.5, ("-0.5",)),
    ([1987.0, "the year 1987"], ("1987", "the year 1987")),
    (np.array(["Paris", "Lutetia"], dtype=object), ("Paris", "Lutetia")),
    ([np.str_("Paris"), np.float64(1987), np.int32(7)], ("Paris", "1987", "7")),
    (["!", "A+", "Paris"], ("Paris",)),
    ("x < y", ("x < y",)),
    ("[REC]", ("[REC]",)),
    ("f(x)", ("f(x)",)),
    ("Paris (France)", ("Paris (France)",)),
    ('"Heroes"', ('"Heroes"',)),
    ("T(n) (big O)", ("T(n) (big O)",)),
    ("[it's]", ("[it's]",)),
    ("(1984)", ("(1984)",)),
    ('("Heroes")', ('("Heroes")',)),
    ("array of [1]", ("array of [1]",)),
    ("true", ("true",)),
    ("nan", ("nan",)),  # a grandmother; a missing value is no text
    ("東京", ("東京",)),
    ("…", ("…",)),
]
REFUSED = [
    (None, Reason.NO_GOLD),
    (float("nan"), Reason.NO_GOLD),
    ("", Reason.NO_GOLD),
    ([], Reason.NO_GOLD),
    ([None, " "], Reason.NO_GOLD),
    ("*", Reason.UNANSWERABLE),
    (["A+", "!"], Reason.UNANSWERABLE),
    ("The", Reason.UNANSWERABLE),
    ("\u200b", Reason.UNANSWERABLE),
    ([["Paris"]], Reason.NOT_TEXT),
    ({"text": ["Paris"], "answer_start": [0]}, Reason.NOT_TEXT),
    ({"value": "Paris", "aliases": ["Lutetia"]}, Reason.NOT_TEXT),
    (float("inf"), Reason.NO_PLAIN_NUMBER),
    (1e22, Reason.NO_PLAIN_NUMBER),
    (float(np.float32(7.1)), Reason.NO_PLAIN_NUMBER),  # 7.099999904632568
    ("half \ud800", Reason.NO_UNICODE),
    ('["Paris", "Lutetia"]', Reason.SAVED_LIST),
    ("['Paris', \"it's\"]", Reason.SAVED_LIST),
    ("['Paris' 'Lutetia'\n 'x']", Reason.SAVED_LIST),
    ("array(['Paris', 'Lutetia'], dtype=object)", Reason.SAVED_LIST),
    ("array([1987, 1988])", Reason.SAVED_LIST),
    ("[u'Paris', u'London']", Reason.SAVED_LIST),
    ("[b'Paris']", Reason.SAVED_LIST),
    ("tensor([1, 2])", Reason.SAVED_LIST),
    ("Index(['Paris'], dtype='object')", Reason.SAVED_LIST),
    ("deque(['Paris'])", Reason.SAVED_LIST),
    ("frozenset({'Paris'})", Reason.SAVED_LIST),
    ("set()", Reason.SAVED_LIST),
    ("<NA>", Reason.SAVED_LIST),
    ("\"['Paris']\"", Reason.SAVED_LIST),
    ('"[\\"Paris\\"]"', Reason.SAVED_LIST),
    ("[1987. 1988.]", Reason.SAVED_LIST),
    ("[]", Reason.SAVED_LIST),
    ("[None, nan]", Reason.SAVED_LIST),
    ("('Paris', 'Lutetia')", Reason.SAVED_LIST),
    ('{"text": ["Paris"], "answer_start": [0]}', Reason.SAVED_LIST),
    (["Paris", "['Lutetia']"], Reason.SAVED_LIST),
    ("</answer>", Reason.PROTOCOL_TAG),
    (["Paris", "<think> hm"], Reason.PROTOCOL_TAG),
]


BOOLEAN = "true or false, which is no answer (save it as the word that is meant)"
BYTES = "bytes, which are no text yet (decode them)"
DECIMAL = "a decimal number, which can be written in several ways (save it as text)"
DATE = "a date or time, which can be written in several ways (save it as text)"
NEITHER = "a value that is neither text nor a number"
DAY = datetime.datetime(1987, 5, 1)
TYPES = [  # what a column may hold -> the answer as it is read, or the sentence that refuses it
    (7, "7"),
    (2**64, "18446744073709551616"),
    (0.5, "0.5"),
    (-0.0, "0"),
    (np.str_(" Paris "), "Paris"),
    (np.int8(-7), "-7"),
    (np.uint64(2**63), "9223372036854775808"),
    (np.float64(1987.0), "1987"),
    (np.float32(0.25), "0.25"),
    (np.float32("nan"), "no gold answer"),
    (pd.NaT, "no gold answer"),
    (np.datetime64("NaT"), "no gold answer"),
    (True, f"{BOOLEAN}: True"),
    (np.True_, f"{BOOLEAN}: True"),
    (b"Paris", f"{BYTES}: b'Paris'"),
    (np.bytes_(b"Paris"), f"{BYTES}: b'Paris'"),
    (bytearray(b"Paris"), f"{BYTES}: bytearray(b'Paris')"),
    (Decimal("1.50"), f"{DECIMAL}: '1.50'"),
    (Decimal("1987"), f"{DECIMAL}: '1987'"),
    (Decimal("NaN"), f"{DECIMAL}: 'NaN'"),
    (DAY, f"{DATE}: '1987-05-01 00:00:00'"),
    (DAY.date(), f"{DATE}: '1987-05-01'"),
    (DAY.time(), f"{DATE}: '00:00:00'"),
    (datetime.timedelta(hours=1), f"{DATE}: '1:00:00'"),
    (pd.Timestamp(DAY), f"{DATE}: '1987-05-01 00:00:00'"),
    (pd.Timedelta(hours=1), f"{DATE}: '0 days 01:00:00'"),
    (np.datetime64("1987-05-01", "D"), f"{DATE}: '1987-05-01'"),
    (np.datetime64("1987-05-01T00", "ns"), f"{DATE}: '1987-05-01T00:00:00.000000000'"),  # to numpy an int
    (np.timedelta64(5, "ns"), f"{DATE}: '5 nanoseconds'"),
    (pd.NA, f"{NEITHER}: <NA>"),
    (1j, f"{NEITHER}: 1j"),
    (["Paris"], f"{NEITHER}: ['Paris']"),
    ({"text": "Paris"}, f"{NEITHER}: {{'text': 'Paris'}}"),
]


@pytest.mark.parametrize(("value", "outcome"), TYPES, ids=lambda entry: f"{type(entry).__name__}-{entry!r}")
def test_every_type_that_a_column_can_hold_is_read_or_refused_in_words_of_its_own(value, outcome):
    for gold in (value, [value]) if not isinstance(value, list) else ([value],):
        try:
            seen = read_golds(gold)
        except RowError as fault:
            seen = (str(fault),)
        assert seen == (outcome,)


@pytest.mark.parametrize(("value", "golds"), READ, ids=repr)
def test_what_has_one_meaning_is_read(value, golds):
    assert read_golds(value) == golds


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=repr)
def test_what_has_none_or_two_is_refused_with_the_value(value, reason):
    with pytest.raises(RowError) as error:
        read_golds(value)
    assert error.value.reason is reason
    str(error.value).encode()  # can be shown


@pytest.mark.parametrize("target", [golds for golds, _ in READ[:6]], ids=repr)
def test_verls_own_columns_may_hold_the_answers_themselves_or_search_r1s_target(target):
    expected = read_golds(target)
    assert row_golds({"style": "rule", "ground_truth": target}) == expected
    assert row_golds({"ground_truth": {"target": target}}) == expected


@pytest.mark.parametrize("reward_model", [None, "Paris", {}, {"ground_truth": None}, {"ground_truth": {"value": "x"}}])
def test_a_reward_model_without_a_ground_truth_is_refused(reward_model):
    with pytest.raises(RowError, match=r"no reward_model\.ground_truth"):
        row_golds(reward_model)


@given(st.text())
def test_what_is_read_of_a_text_reads_the_same_again(text):
    try:
        golds = read_golds(text)
    except RowError:
        return
    assert golds == (text.strip(),)
    assert read_golds(list(golds)) == golds


@pytest.mark.parametrize("text", ["[" * 10**6, "['" * 500_000 + "]", "[" + "\\'" * 500_000 + "]", "array([" * 200_000])
def test_a_hostile_text_takes_no_longer_than_its_length(text):
    started = time.process_time()
    with contextlib.suppress(RowError):
        read_golds(text)
    assert time.process_time() - started < 1.0
