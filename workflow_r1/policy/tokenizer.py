"""A policy's tokenizer: loaded, and asked whether it gives back the text that it is given."""

import unicodedata
from typing import Any

from workflow_r1.errors import UserError, reason_of
from workflow_r1.protocol import TAGS

# Plain ASCII, all of it, with single and double blanks, newlines and indents.
_ASCII = (
    "<think>Who 's there ? It is  Ann-Marie (b . 1987) , isn't it ?\n\nAsk ; then answer .</think>\n"
    "<tool>AnswerGenerate: 1 2 12 007 3.14 1,000 at 10:30 ?</tool>\n"
    "def f(a):\n    return [a, 2]  # note\n- one\n  - two\n"
    f"{' '.join(f'<{tag}> </{tag}>' for tag in TAGS)} {''.join(map(chr, range(32, 127)))}."
)
_OTHER_TEXTS = {
    "accented letters": "Ann-Marie Dvořák-Élan, Ærø, Łódź, İzmir, São Tomé",
    "Chinese": "北京在中国",
    "Japanese": "東京は日本のとし",
    "Korean": "서울은 한국",
    "Cyrillic": "Москва — столица",
    "Greek": "Αθήνα",
    "Arabic": "القاهرة في مصر",
    "Hebrew": "ירושלים",
    "Hindi": "नई दिल्ली",
    "Thai": "กรุงเทพ",
    "typographic marks": "“a” ‘b’ – — … ° € £ ×",
    "emoji": "😀 🎈",
    "tabs": "a\tb",
}


class TokenizerError(UserError):
    """Why a tokenizer is not one for a policy: a clause, without a full stop."""


def load_tokenizer(name_or_path: str, trust_remote_code: bool, to_trust: str) -> Any:
    """The tokenizer of a model as transformers loads it; nobody is asked whether to trust its code.

    Args:
        trust_remote_code: whether code that comes with the model may run.
        to_trust: the setting that makes that so, for the error.

    Raises:
        TokenizerError: it cannot be loaded.
    """
    from transformers import AutoTokenizer  # slow to import, and only needed here

    try:
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
    except Exception as error:  # a tokenizer's own code and files fail in every way
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise TokenizerError(
                f"its tokenizer needs code that comes with the model: read it, and if you trust it set {to_trust}"
            ) from None
        raise TokenizerError(f"its tokenizer cannot be loaded ({reason_of(error)})") from None


def check_tokenizer(tokenizer: Any) -> None:
    """The tokenizer can end a turn, says where its tokens lie, and gives back the protocol's tags and plain ASCII text.

    Raises:
        TokenizerError: it does not.
    """
    if not tokenizer.is_fast:
        raise TokenizerError(
            f"its tokenizer, {type(tokenizer).__name__}, cannot say where its tokens lie in a text: convert it to a "
            "tokenizer.json that transformers loads as a fast tokenizer"
        )
    if tokenizer.eos_token_id is None:
        raise TokenizerError("its tokenizer names no eos_token: set one in tokenizer_config.json")
    if lost := _lost(tokenizer, _ASCII):
        raise TokenizerError(
            f"its tokenizer, loaded as {type(tokenizer).__name__}, does not give a text back: {lost}; a wrong "
            "tokenizer_class in tokenizer_config.json does this, and PreTrainedTokenizerFast takes tokenizer.json as "
            "it is"
        )


def lost_text_note(tokenizer: Any) -> str | None:
    """One sentence on the scripts and signs that a tokenizer does not give back; None if it gives them all back.

    A vocabulary for English alone lacks them, and can be trained all the same.
    """
    lost = {name: how for name, text in _OTHER_TEXTS.items() if (how := _lost(tokenizer, text))}
    if not lost:
        return None
    return (
        f"The policy's tokenizer does not give back {', '.join(lost)} as written ({next(iter(lost.values()))}): that "
        "is how the policy reads and writes them."
    )


def _lost(tokenizer: Any, text: str) -> str:
    """What becomes of a text's first place that is not given back as it was.

    White space at its ends does not count, nor whether an accent is a character of its own.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    decoded = unicodedata.normalize("NFC", decoded.strip())
    if decoded == text:
        return ""
    pairs = enumerate(zip(text, decoded, strict=False))
    place = next((place for place, (sent, got) in pairs if sent != got), min(len(text), len(decoded)))
    part = slice(max(place - 8, 0), place + 20)
    return f"{text[part]!r} becomes {decoded[part]!r}"
