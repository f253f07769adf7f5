"""The policy's prompt, rendered from the operators' declarations, so that prompt and pool cannot drift apart."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workflow_r1.errors import UserError
from workflow_r1.operators import OperatorSpec

DEFAULT_TEMPLATE = Path(__file__).with_name("prompt.jinja")


class PromptError(UserError):
    """A prompt template that cannot be used: one sentence that says what to do."""


def render_system_prompt(
    operators: Sequence[OperatorSpec],
    max_calls: int = 20,
    max_parallel_calls: int = 1,
    template: Path = DEFAULT_TEMPLATE,
) -> str:
    """The system prompt for a pool of operators.

    Args:
        operators: the declarations on offer, such as `OperatorPool.specs`.
        max_calls: operator calls in one trajectory.
        max_parallel_calls: operator calls in one turn.
        template: a Jinja template, run in a sandbox. It sees these arguments by their names; of an operator it mostly
            needs `name`, `use_when`, `input_form` and `inputs`.

    Raises:
        PromptError: the template cannot be read or rendered, or leaves an operator out.
    """
    try:
        source = template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PromptError(f"The prompt template {template} cannot be read: {reason}.") from None
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        prompt = environment.from_string(source).render(
            operators=list(operators), max_calls=max_calls, max_parallel_calls=max_parallel_calls
        )
    except TemplateSyntaxError as error:
        raise PromptError(f"The prompt template {template}, line {error.lineno}: {error.message}.") from None
    except Exception as error:  # a template is a program of the user's: it can fail in every way
        raise PromptError(f"The prompt template {template} cannot be rendered: {str(error).rstrip('.')}.") from None
    if missing := [spec.name for spec in operators if spec.name not in prompt]:
        raise PromptError(
            f"The prompt template {template} does not mention {', '.join(missing)}: loop over `operators`, or leave "
            "them out of the pool."
        )
    return prompt.strip()


def policy_messages(question: str, system_prompt: str) -> list[dict[str, str]]:
    """The chat messages that a trajectory starts from."""
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": question}]
