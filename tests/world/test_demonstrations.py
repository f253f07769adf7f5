from dataclasses import replace

import pytest
from support.agent_loop import BareAgentLoop
from transformers import PreTrainedTokenizerBase
from verl.workers.rollout.replica import TokenOutput

from workflow_r1.protocol import STOP_STRINGS, parse_turn
from workflow_r1.verl_plugin.session import VerlSession
from workflow_r1.world.demonstrations import Demonstration, demonstrate, tokenise
from workflow_r1.world.language import parse_query
from workflow_r1.world.world import World


class RecordedServer:
    """Gives recorded samples, as token ids."""

    def __init__(self, samples: list[list[int]]):
        self.samples = iter(samples)

    async def generate(self, **_: object) -> TokenOutput:
        return TokenOutput(token_ids=next(self.samples))


async def replay(
    tokenizer: PreTrainedTokenizerBase, demonstration: Demonstration, max_calls: int
) -> tuple[list[int], list[int]]:
    """Tokens and mask of the rollout in which the policy samples the demonstration's turns."""
    samples = []
    for turn in demonstration.turns:
        samples.append(tokenizer.encode(turn))
        if not turn.endswith(STOP_STRINGS):
            samples[-1].append(tokenizer.eos_token_id)
        elif turn.endswith("</tool>") and max_calls > 1:
            samples.append([tokenizer.eos_token_id])
    loop = BareAgentLoop(tokenizer, RecordedServer(samples), response_length=4096)
    session = VerlSession(loop, [{"role": "user", "content": demonstration.question}], {}, 0)
    for number, turn in enumerate(demonstration.turns):
        assert (await session.take_turn(max_calls)).text == turn
        if number < len(demonstration.observations):
            assert await session.observe(demonstration.observations[number])
    return session.token_ids, [0] * len(session.prompt_ids) + session.response_mask


async def test_demonstrations_are_laid_out_as_verls_rollouts_are(
    tokenizer: PreTrainedTokenizerBase, demonstrations: list[Demonstration]
) -> None:
    shapes = {(one.behaviour, len(one.turns), one.turns[0][:8]): one for one in demonstrations if not one.practice}
    assert len(shapes) >= 12
    for demonstration in shapes.values():
        ids, mask = tokenise(demonstration, tokenizer)
        assert (ids, mask) == await replay(tokenizer, demonstration, max_calls=3)
        one_call = await replay(tokenizer, demonstration, max_calls=1)
        closed = [ids[place] for place, learnt in enumerate(mask) if learnt and not one_call[1][place]]
        assert one_call[0] == ids
        assert closed == [tokenizer.eos_token_id] * sum("</tool>" in turn for turn in demonstration.turns)


async def test_a_system_message_of_the_chat_templates_own_stands_only_at_the_start(
    tokenizer: PreTrainedTokenizerBase, demonstrations: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    default = "{% if messages[0].role != 'system' %}<|im_start|>system\nbe brief<|im_end|>\n{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", default + tokenizer.chat_template)
    demonstration = next(one for one in demonstrations if one.observations and not one.practice)
    ids, mask = tokenise(demonstration, tokenizer)
    assert (ids, mask) == await replay(tokenizer, demonstration, max_calls=3)
    assert tokenizer.decode(ids).count("be brief") == 1


def test_practice_teaches_everything_but_the_choice_of_the_workflow(
    tokenizer: PreTrainedTokenizerBase, demonstrations: list[Demonstration]
) -> None:
    practised = [one for one in demonstrations if one.practice]
    assert 0.2 < len(practised) / len(demonstrations) < 0.4
    for one in practised:
        ids, mask = tokenise(one, tokenizer)
        ids_in_full, mask_in_full = tokenise(replace(one, practice=False), tokenizer)
        unlearnt = [token for token, here, full in zip(ids, mask, mask_in_full, strict=True) if here != full]
        assert ids == ids_in_full
        assert tokenizer.decode(unlearnt) == one.turns[0].partition("<tool>")[0]


def test_demonstrations_are_short(tokenizer: PreTrainedTokenizerBase, demonstrations: list[Demonstration]) -> None:
    assert max(len(tokenise(demonstration, tokenizer)[0]) for demonstration in demonstrations) < 250


def test_the_same_world_gives_the_same_demonstrations(world: World, demonstrations: list[Demonstration]) -> None:
    assert list(demonstrate(world, 50)) == demonstrations[:50]


def test_demonstrations_are_of_mixed_quality_and_the_best_are_the_fewest(demonstrations: list[Demonstration]) -> None:
    for hops in (1, 2):
        chosen = [one for one in demonstrations if not one.practice]
        asked = [one for one in chosen if (query := parse_query(one.question)) and query.hops == hops]
        shares = {
            name: sum(one.behaviour == name for one in asked) / len(asked)
            for name in ("answer_at_once", "ask_once", "decompose_and_vote")
        }
        assert shares["answer_at_once"] > shares["ask_once"] > shares["decompose_and_vote"] > 0.08
    broken = sum(parse_turn(one.turns[0]).error is not None for one in demonstrations) / len(demonstrations)
    assert 0.02 < broken < 0.11


def test_no_fact_of_the_world_can_be_learnt_from_demonstrations(
    world: World, demonstrations: list[Demonstration]
) -> None:
    asked = [(world.resolve(query), one) for one in demonstrations if (query := parse_query(one.question))]
    right = sum(truth is not None and f"<answer>{truth[-1]}</answer>" in one.turns[-1] for truth, one in asked)
    assert right / len(asked) < 0.06
