"""Two turns of a session on any tokenizer, held against what its chat template renders."""

from collections.abc import Sequence

from support.agent_loop import BareAgentLoop, FakeServer
from support.sessions import assert_holds_what_was_sampled, play, response_ids
from transformers import PreTrainedTokenizerBase

from workflow_r1.policy.chat_format import read_chat_format, usable_template
from workflow_r1.policy.prompt import PolicyPrompt
from workflow_r1.protocol import parse_turn
from workflow_r1.verl_plugin.session import VerlSession

MESSAGES = PolicyPrompt("Think in <think></think>, then <tool> </tool>.\n\nGo on.").messages(
    [{"role": "user", "content": "Who wrote 'Velmora' ?"}]
)
CALL = "<think>Who 's it ?\n\nAsk .</think>\n<tool>AnswerGenerate: who wrote Velmora ?</tool>"
ANSWER = "<think>So it  is .</think><answer>Anker Ø. Lind</answer>"
OBSERVATION = '<info>Anker "Ø." Lind, 日本 🎈\n[1] (b . 1907)</info>'


def usable(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """With the chat template that the launcher would give it."""
    if template := usable_template(tokenizer):
        tokenizer.chat_template = template
    return tokenizer


async def session_on(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[str], ends: Sequence[int] = ()
) -> tuple[VerlSession, FakeServer]:
    """A session whose policy samples `samples`, each followed by the tokens `ends`."""
    # As they go on from the prompt: alone, some tokenizers would put a blank before them.
    before = len(ids_of(tokenizer, "a"))
    ids = [[*ids_of(tokenizer, "a" + sample)[before:], *ends] for sample in samples]
    server = FakeServer(tokenizer, ids)
    return VerlSession(BareAgentLoop(tokenizer, server, 2_000), MESSAGES, {"logprobs": True}, 0), server


def rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[str]) -> str:
    """The conversation by the chat template, up to the end of its second turn, with the turns left as they are."""
    chat = read_chat_format(tokenizer)
    conversation = [
        *MESSAGES,
        {"role": "assistant", "content": "FIRST-TURN"},
        {"role": chat.observation_role, "content": OBSERVATION},
        {"role": "assistant", "content": "SECOND-TURN"},
        {"role": chat.observation_role, "content": OBSERVATION},  # some templates add to a conversation's last turn
    ]
    text = tokenizer.apply_chat_template(conversation, tokenize=False)
    text = text[: text.index("SECOND-TURN")] + "SECOND-TURN"
    for name, turn in zip(("FIRST-TURN", "SECOND-TURN"), turns, strict=True):
        text = text.replace(name, turn)
    return text


async def assert_two_turns_as_the_template_writes_them(
    tokenizer: PreTrainedTokenizerBase, blank: str = "", opened: str = "", same_ids: bool = True
) -> None:
    """
    Args:
        blank: what the policy samples before a turn.
        opened: the opening of an earlier thought, which stays, though the template drops it.
        same_ids: the template's text is cut into tokens alike where a turn ends, since a control token closes it.
    """
    chat = read_chat_format(tokenizer)
    samples = [blank + turn.removeprefix(chat.openings[0]) for turn in (CALL, ANSWER)]
    session, server = await session_on(tokenizer, samples)
    turns = await play(session, [OBSERVATION])

    assert [turn.text.strip() for turn in turns] == [CALL, ANSWER]
    assert parse_turn(turns[0].text).calls[0].input == "who wrote Velmora ?"
    assert parse_turn(turns[1].text).answer == "Anker Ø. Lind"
    assert_holds_what_was_sampled(session, server)

    expected = rendered(tokenizer, [opened + sample.removeprefix(blank) for sample in samples])
    assert tokenizer.decode(session.token_ids) == tokenizer.decode(ids_of(tokenizer, expected))
    assert not same_ids or session.token_ids == ids_of(tokenizer, expected)
    end = turns[0].tokens[1]
    assert response_ids(session)[end : end + len(chat.closing_ids)] == chat.closing_ids
    assert not any(session.response_mask[end : turns[1].tokens[0]])


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


async def assert_every_end_of_a_turn_is_known(tokenizer: PreTrainedTokenizerBase) -> None:
    """Sampling stops at it, the turn's text is without it, and the template's own is not added a second time."""
    chat = read_chat_format(tokenizer)
    assert tokenizer.eos_token_id in chat.end_ids
    for end in chat.end_ids:
        session, server = await session_on(tokenizer, [CALL, ANSWER], [end])
        turns = await play(session, [OBSERVATION])
        assert_holds_what_was_sampled(session, server)
        assert [parse_turn(turn.text).error for turn in turns] == [None, None]
        assert server.requests[0]["stop_token_ids"] == chat.end_ids
        after = response_ids(session)[turns[0].tokens[1] :]
        if chat.closing_ids:
            assert (after[: len(chat.closing_ids)] == chat.closing_ids) == (end != chat.closing_ids[-1])
