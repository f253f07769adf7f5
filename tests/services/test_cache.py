import asyncio
import multiprocessing
import sqlite3
import time

import pytest
import support.faulty_endpoint as c

from workflow_r1.operators import OperatorConfigError
from workflow_r1.services.cache import FILE, ReplyCache
from workflow_r1.services.single_flight import SingleFlight


async def test_a_request_seen_before_is_not_made_again(endpoint, make_pool, tmp_path):
    first = await make_pool(cache="on", cache_dir=tmp_path).call("AnswerGenerate", "q")
    again = await make_pool(cache="on", cache_dir=tmp_path).call("AnswerGenerate", "q")  # as another process would
    assert (first.text, again.text) == ("Paris", "Paris")
    assert (first.requests, first.cache_hits, first.prompt_tokens) == (1, 0, 10)
    assert (again.requests, again.cache_hits, again.prompt_tokens) == (0, 1, 0)
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("change", [{"model": "large"}, {"base_url": "localhost"}, {}])
async def test_another_endpoint_model_or_prompt_is_another_request(endpoint, make_pool, tmp_path, change):
    if "base_url" in change:
        change = {"base_url": endpoint.url.replace("127.0.0.1", "localhost")}
    await make_pool(cache="on", cache_dir=tmp_path).call("AnswerGenerate", "q")
    await make_pool(cache="on", cache_dir=tmp_path, **change).call("AnswerGenerate", "q" if change else "other")
    assert len(endpoint.bodies) == 2


async def test_without_a_cache_every_call_is_a_request(endpoint, make_pool):
    pool = make_pool()
    await asyncio.gather(*(pool.call("AnswerGenerate", "q") for _ in range(3)))
    assert len(endpoint.bodies) == 3


async def test_a_read_only_cache_answers_and_keeps_nothing(endpoint, make_pool, tmp_path):
    await make_pool(cache="on", cache_dir=tmp_path).call("AnswerGenerate", "known")
    reader = make_pool(cache="read", cache_dir=tmp_path)
    assert (await reader.call("AnswerGenerate", "known")).cache_hits == 1
    await reader.call("AnswerGenerate", "new")
    assert (await reader.call("AnswerGenerate", "new")).cache_hits == 0
    assert len(endpoint.bodies) == 3


async def test_samples_are_cached_only_when_asked_for_and_each_for_itself(endpoint, make_pool, tmp_path):
    endpoint.script.extend(c.result(f"sample {number}") for number in range(9))
    pool = make_pool(cache="on", cache_dir=tmp_path)
    await pool.call("MultiAnswerGenerate", "q")
    assert (await pool.call("MultiAnswerGenerate", "q")).requests == 3
    pool = make_pool(cache="on", cache_dir=tmp_path, cache_sampled=True)
    first = await pool.call("MultiAnswerGenerate", "q")
    again = await pool.call("MultiAnswerGenerate", "q")
    assert first.text == again.text
    assert {f"sample {number}" in first.text for number in (6, 7, 8)} == {True}
    assert (first.requests, again.requests, again.cache_hits) == (3, 0, 3)


async def test_identical_requests_in_flight_are_made_once(endpoint, make_pool, tmp_path):
    released = asyncio.Event()

    async def slow(request, body):
        await released.wait()
        return await c.result("Paris")(request, body)

    endpoint.behaviour = slow
    pool = make_pool(cache="on", cache_dir=tmp_path)
    calls = [asyncio.create_task(pool.call("AnswerGenerate", "q")) for _ in range(10)]
    await endpoint.asked.wait()
    calls[0].cancel()  # the one that made the request
    await asyncio.sleep(0.05)
    released.set()
    results = await asyncio.gather(*calls[1:])
    assert [result.text for result in results] == ["Paris"] * 9
    assert sum(result.cache_hits for result in results) == 9
    assert len(endpoint.bodies) == 1


async def test_failures_and_empty_replies_are_not_kept(endpoint, make_pool, tmp_path):
    endpoint.script.extend([c.status(400), c.reply("")])
    pool = make_pool(cache="on", cache_dir=tmp_path, max_reasks=0)
    assert (await pool.call("AnswerGenerate", "q")).failed
    assert (await pool.call("AnswerGenerate", "q")).text == "(no reply)"
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"
    assert (await pool.call("AnswerGenerate", "q")).cache_hits == 1


async def test_neither_key_nor_prompt_is_on_disk(make_pool, tmp_path):
    pool = make_pool(cache="on", cache_dir=tmp_path / "cache")
    await pool.call("AnswerGenerate", "a question of some secrecy")
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Paris" in content
    assert c.KEY.encode() not in content
    assert b"secrecy" not in content
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


async def test_the_cache_stays_within_its_size(tmp_path):
    cache = ReplyCache(tmp_path, size_limit=200_000)
    for number in range(100):
        await cache.put(str(number), "x" * 10_000)
    assert cache.get("99") == "x" * 10_000
    assert cache.get("0") is None
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.db")) < 600_000


def test_processes_write_at_once_and_lose_nothing(tmp_path):
    writers = [multiprocessing.get_context("fork").Process(target=fill, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    cache = ReplyCache(tmp_path, size_limit=2**30)
    assert all(cache.get(f"{name}{number}") == name * 50 for name in "abc" for number in range(100))
    assert cache.get("shared") in ("a" * 50, "b" * 50, "c" * 50)


def fill(folder, name: str) -> None:
    async def write() -> None:
        cache = ReplyCache(folder, size_limit=2**30)
        for number in range(100):
            await cache.put(f"{name}{number}", name * 50)
            await cache.put("shared", name * 50)
            assert len(cache.get("shared")) == 50

    asyncio.run(write())


async def test_a_cache_that_breaks_on_the_way_is_a_miss(endpoint, make_pool, tmp_path, caplog):
    pool = make_pool(cache="on", cache_dir=tmp_path)
    await pool.call("AnswerGenerate", "q")
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("DROP TABLE replies")
    result = await pool.call("AnswerGenerate", "q")
    assert (result.text, result.requests) == ("Paris", 1)
    assert "The operator cache could not be read" in caplog.text
    assert "The operator cache could not be written" in caplog.text


def test_a_cache_that_cannot_be_opened_is_one_clear_sentence(make_pool, tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    complaint = (
        r"^The operator cache .* cannot be opened .*: delete it, or name another workflow_r1\.operators\.cache_dir"
    )
    with pytest.raises(OperatorConfigError, match=complaint):
        make_pool(cache="on", cache_dir=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OperatorConfigError, match=r"^The operator cache .* cannot be opened"):
        make_pool(cache="on", cache_dir=tmp_path / "file" / "cache")


def test_an_entry_that_is_no_text_is_a_miss(tmp_path):
    cache = ReplyCache(tmp_path, size_limit=100_000)
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("INSERT INTO replies VALUES ('key', ?)", (b"\x80\x04N.",))
    assert cache.get("key") is None


@pytest.mark.parametrize("reply", ["Zoë 😀", "a\0b", " ", "x" * 1_000_000, "'); DROP TABLE replies; --"])
async def test_a_reply_comes_back_as_it_was(tmp_path, reply):
    await ReplyCache(tmp_path, size_limit=2**30).put("key", reply)
    assert ReplyCache(tmp_path, size_limit=2**30).get("key") == reply


async def test_a_reply_that_cannot_be_written_is_a_miss(tmp_path, caplog):
    cache = ReplyCache(tmp_path, size_limit=2**30)
    await cache.put("key", "half a pair: \ud800")
    assert cache.get("key") is None
    assert "The operator cache could not be written" in caplog.text
    await cache.put("key", "whole")
    assert cache.get("key") == "whole"


async def test_a_reply_larger_than_the_cache_is_not_kept_and_does_no_harm(tmp_path):
    cache = ReplyCache(tmp_path, size_limit=100_000)
    await cache.put("large", "x" * 1_000_000)
    await cache.put("small", "y")
    assert (cache.get("large"), cache.get("small")) == (None, "y")


async def test_reading_waits_for_no_writer(tmp_path):
    cache = ReplyCache(tmp_path, size_limit=2**30)
    await cache.put("known", "Paris")
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(cache.put("new", "Rome"))
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        assert (cache.get("known"), cache.get("new")) == ("Paris", None)
        assert time.perf_counter() - started < 1
        other.commit()
    await writing
    assert cache.get("new") == "Rome"


async def test_what_shared_work_raises_every_caller_gets():
    flights, started = SingleFlight(), []

    async def work() -> str:
        started.append(1)
        await asyncio.sleep(0.01)
        raise KeyError("gone")

    outcomes = await asyncio.gather(*(flights.run("key", work) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [KeyError] * 3
    assert len(started) == 1
    with pytest.raises(KeyError):
        await flights.run("key", work)
    assert len(started) == 2


async def test_shared_work_ends_with_its_last_caller():
    flights, ended = SingleFlight(), asyncio.Event()

    async def work() -> str:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return ""

    callers = [asyncio.create_task(flights.run("key", work)) for _ in range(2)]
    await asyncio.sleep(0.01)
    callers[0].cancel()
    await asyncio.sleep(0.01)
    assert not ended.is_set()
    callers[1].cancel()
    await asyncio.wait_for(ended.wait(), timeout=1)
