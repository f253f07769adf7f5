"""A megabyte of any text is read in linear time: policies and operators write what they like, and a worker waits."""

import time

import pytest
from support.hostile_texts import HOSTILE_TEXTS, READERS


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_no_text_takes_quadratic_time(reader: str, text: str) -> None:
    started = time.process_time()
    READERS[reader](HOSTILE_TEXTS[text])
    # All below 0.2 s on an idle machine (benchmarks/parsing_speed.py); the rest is for slow and busy ones.
    assert time.process_time() - started < 1
