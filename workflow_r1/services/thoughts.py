"""Replies of thinking models."""


def without_thoughts(reply: str) -> str:
    """The reply less the thoughts that a thinking model puts before it, in `<think>` tags.

    Chat templates that open the tag themselves leave only its end in the reply; a reply that breaks off in the middle
    of a thought has nothing but the tag's beginning.
    """
    if reply.lstrip().startswith("<think>") or "<think>" not in reply:
        thoughts, closing, rest = reply.partition("</think>")
        if closing:
            return rest.lstrip()
        return "" if thoughts.lstrip().startswith("<think>") else reply
    return reply
