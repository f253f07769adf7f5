"""Asking every question of an evaluation once, many at a time, and keeping each result at once."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from workflow_r1.data.examples import Example
from workflow_r1.evaluation.errors import EvaluationError, PolicyEndpointError
from workflow_r1.evaluation.record import Key, Record, ResultStore
from workflow_r1.evaluation.systems import System
from workflow_r1.operators.judge import RewardOperators
from workflow_r1.reward import Reward

_FAILURES_IN_A_ROW = 50  # by then an endpoint is down, and asking on would only add failures


def all_keys(examples: Iterable[Example], samples: int) -> Iterator[Key]:
    """The keys of every sample of every question, in order."""
    for example in examples:
        for sample in range(samples):
            yield example.data_source, example.id, sample


def missing(examples: Sequence[Example], samples: int, store: ResultStore) -> list[tuple[Example, int]]:
    """The samples that have no result yet, a failed one included."""
    by_key = {(example.data_source, example.id): example for example in examples}
    return [(by_key[key[:2]], key[2]) for key in all_keys(examples, samples) if not store.is_done(key)]


async def evaluate(
    work: Iterable[tuple[Example, int]],
    system: System,
    store: ResultStore,
    reward: Reward,
    *,
    seed: int,
    concurrency: int,
    on_result: Callable[[Record], None] = lambda record: None,
) -> None:
    """Ask what `work` lists, at most `concurrency` at a time.

    Args:
        seed: with the question and the sample's number, decides what is sampled.
        on_result: called with each record once it is in the store.

    Raises:
        EvaluationError: one question after the other failed; what was answered is kept.
        RewardError: the reward function failed.
    """
    remaining = iter(work)
    failures = 0

    async def worker() -> None:
        nonlocal failures
        for example, sample in remaining:
            record = await _ask(system, example, sample, seed, reward)
            store.append(record)
            on_result(record)
            failures = 0 if record.error is None else failures + 1
            if failures >= _FAILURES_IN_A_ROW:
                raise EvaluationError(
                    f"{failures} questions in a row could not be served, the last one because: {record.error} "
                    "Run the same command again to go on."
                )

    workers = [asyncio.create_task(worker()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _ask(system: System, example: Example, sample: int, seed: int, reward: Reward) -> Record:
    record = Record(benchmark=example.data_source, id=example.id, sample=sample)
    digest = hashlib.sha256(f"{seed} {example.data_source} {example.id} {sample}".encode()).digest()
    started = time.perf_counter()
    try:
        attempt = await system.attempt(example.question, seed=int.from_bytes(digest[:4], "big") // 2)
    except PolicyEndpointError as error:
        record.error = str(error)
    else:
        trajectory = attempt.trajectory
        trajectory.data_source = example.data_source
        await reward.score(trajectory, example.golds, example.row, RewardOperators(system.operators))
        record.error, record.trajectory = trajectory.unscored, trajectory
        record.prompt_tokens, record.completion_tokens = attempt.prompt_tokens, attempt.completion_tokens
    record.seconds = time.perf_counter() - started
    return record
