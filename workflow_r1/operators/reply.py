"""Reading the tagged part, the one that counts, out of a model's reply."""

import re

_REASONING = re.compile(r"\s*<(think|reasoning)>.*?</\1>\s*", re.DOTALL)


def has_tag(reply: str, tag: str) -> bool:
    """Whether the reply holds a complete, non-empty `<tag>...</tag>`."""
    return _complete(reply, tag) is not None


def extract_tag(reply: str, tag: str) -> str:
    """The text of the reply's last complete `<tag>`; of an unclosed one, the rest of the reply.

    Without the tag it is the whole reply, less a leading block of reasoning.
    """
    complete = _complete(reply, tag)
    if complete is not None:
        return complete
    if reasoning := _REASONING.match(reply):
        reply = reply[reasoning.end() :] or reply
    rest = reply.rpartition(f"<{tag}>")[2]
    return rest.replace(f"</{tag}>", "").strip()


def _complete(reply: str, tag: str) -> str | None:
    # A model that first talks about the tag opens it twice: the last opening counts.
    head, closing, _ = reply.rpartition(f"</{tag}>")
    _, opening, content = head.rpartition(f"<{tag}>")
    return content.strip() if closing and opening and content.strip() else None
