"""The tokenizer, its chat template, and their agreement with verl's continuous-token builder."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from workflow_r1.protocol import STOP_STRINGS, TAGS
from workflow_r1.world.demonstrations import Demonstration, demonstrate, tokenise
from workflow_r1.world.language import parse_query
from workflow_r1.world.tiny_policy import new_model, vocabulary
from workflow_r1.world.tokenizer import FIELD_TAGS, build_tokenizer
from workflow_r1.world.world import World


@pytest.fixture(scope="module")
def demonstrations(world: World) -> list[Demonstration]:
    return list(demonstrate(world, 300))


@pytest.fixture(scope="module")
def tokenizer(
    world: World, demonstrations: list[Demonstration], tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerBase:
    """As every user of the checkpoint gets it: saved beside a model's configuration, and loaded."""
    path = tmp_path_factory.mktemp("checkpoint")
    built = build_tokenizer(vocabulary(world, demonstrations))
    built.save_pretrained(path)
    new_model(built, seed=0).config.save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_the_same_world_gives_the_same_tokenizer(world: World, demonstrations: list[Demonstration]) -> None:
    words = vocabulary(world, demonstrations)
    once, again = build_tokenizer(words), build_tokenizer(sorted(words, reverse=True))
    assert once.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()


def test_every_name_and_tag_is_one_token_wherever_it_stands(tokenizer: PreTrainedTokenizerBase, world: World) -> None:
    for name in (name for names in world.entities.values() for name in names):
        (token,) = encode(tokenizer, name)
        for text in (f"who wrote {name} ?", f"<info>{name}</info>", f"[Answer 1] {name}\n"):
            assert token in encode(tokenizer, text)
    for tag in (*TAGS, *FIELD_TAGS):
        assert len(encode(tokenizer, f"<{tag}></{tag}>")) == 2


def test_every_question_word_is_one_token(tokenizer: PreTrainedTokenizerBase, world: World) -> None:
    for question in world.questions:
        assert len(encode(tokenizer, question.text)) == len(question.text.split())


def test_protocol_tags_survive_decoding_without_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    turn = "<think>ask</think><tool>AnswerGenerate: who wrote it ?</tool>"
    assert tokenizer.decode(encode(tokenizer, turn + "<|im_end|>"), skip_special_tokens=True) == turn


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_encodes_and_decodes_back_exactly(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_the_chat_template_renders_every_role_and_only_appends(tokenizer: PreTrainedTokenizerBase) -> None:
    call = {"type": "function", "function": {"name": "AnswerGenerate", "arguments": "who wrote it ?"}}
    messages = [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "who wrote it ?"},
        {"role": "assistant", "content": "<think>ask</think>", "tool_calls": [call]},
        {"role": "tool", "content": "<info>Tolen</info>"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nrules<|im_end|>\n"
        "<|im_start|>user\nwho wrote it ?<|im_end|>\n"
        "<|im_start|>assistant\n<think>ask</think><tool>AnswerGenerate: who wrote it ?</tool><|im_end|>\n"
        "<|im_start|>tool\n<info>Tolen</info><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    rendered = [
        tokenizer.apply_chat_template(messages[:count], return_dict=False) for count in range(1, len(messages) + 1)
    ]
    for shorter, longer in zip(rendered, rendered[1:], strict=False):
        assert longer[: len(shorter)] == shorter


class ReplayingLoop:
    """The part of verl's agent loop that `VerlSession` needs, with recorded turns in place of a server."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, turns: list[list[int]]):
        from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

        self.tokenizer = tokenizer
        self.rollout_config = SimpleNamespace(response_length=4096)
        self.server_manager = self
        self._builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen3")
        self._turns = iter(turns)

    async def generate(self, **_: object) -> object:
        ids = next(self._turns)
        return SimpleNamespace(token_ids=ids, log_probs=None, num_preempted=0, extra_fields={})

    async def ct_build_initial_tokens(self, messages: list) -> list[int]:
        return self._builder.build_initial_tokens(messages)

    async def ct_merge_assistant_token(self, ids: list, new: list, mask: list, logprobs: None, **_: object) -> tuple:
        merged = self._builder.merge_assistant_tokens(ids, new)
        return merged, *self._builder.align_response_metadata(merged, mask, logprobs)

    async def ct_merge_context_msg(self, before: list, after: list, ids: list, mask: list, logprobs: None) -> tuple:
        merged = self._builder.merge_context_tokens(before, after, ids)
        return merged, *self._builder.align_response_metadata(merged, mask, logprobs)


async def replayed(tokenizer: PreTrainedTokenizerBase, demonstration: Demonstration) -> tuple[list[int], list[int]]:
    """Tokens and mask of the rollout in which the policy samples the demonstration's turns."""
    from workflow_r1.verl_plugin.session import VerlSession

    ends = [[] if turn.endswith(STOP_STRINGS) else [tokenizer.eos_token_id] for turn in demonstration.turns]
    turns = [encode(tokenizer, turn) + end for turn, end in zip(demonstration.turns, ends, strict=True)]
    loop = ReplayingLoop(tokenizer, turns)
    session = VerlSession(loop, [{"role": "user", "content": demonstration.question}], {}, 0)
    await session.start()
    for number, turn in enumerate(demonstration.turns):
        assert (await session.take_turn(max_calls=1)).text == turn
        if number < len(demonstration.observations):
            assert await session.observe(demonstration.observations[number])
    return session.token_ids, [0] * len(session.prompt_ids) + session.response_mask


def test_demonstrations_are_laid_out_as_verls_rollouts_are(
    tokenizer: PreTrainedTokenizerBase, demonstrations: list[Demonstration]
) -> None:
    shapes = {(len(demonstration.turns), demonstration.behaviour): demonstration for demonstration in demonstrations}
    assert len(shapes) >= 8
    for demonstration in shapes.values():
        ids, mask = tokenise(demonstration, tokenizer)
        assert (ids, mask) == asyncio.run(replayed(tokenizer, demonstration))


def test_demonstrations_are_short(tokenizer: PreTrainedTokenizerBase, demonstrations: list[Demonstration]) -> None:
    lengths = [len(tokenise(demonstration, tokenizer)[0]) for demonstration in demonstrations]
    assert max(lengths) < 250


def test_demonstrations_are_of_mixed_quality_and_repeat_for_a_seed(world: World) -> None:
    sample = list(demonstrate(world, 1000))
    assert sample[:50] == list(demonstrate(world, 50))
    shares = {name: sum(one.behaviour == name for one in sample) / 1000 for name in {one.behaviour for one in sample}}
    assert shares["answer_at_once"] > shares["ask_once"] > shares["decompose_and_vote"] > shares["decompose"] > 0.03
    broken = sum(not one.turns[0].startswith("<think>") for one in sample) / 1000
    assert 0.02 < broken < 0.1


def test_nothing_true_of_the_world_itself_can_be_learnt_from_demonstrations(world: World) -> None:
    right = total = 0
    for demonstration in demonstrate(world, 500):
        query = parse_query(demonstration.question)
        truth = world.resolve(query)
        total += 1
        right += truth is not None and f"<answer>{truth[-1]}</answer>" in demonstration.turns[-1]
    assert right / total < 0.05
