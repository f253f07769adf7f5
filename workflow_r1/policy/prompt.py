"""What a trajectory starts from: the system message, rendered from the run's operators and limits, and the question.

Training, the checks before it, `eval` and `ask` all take it from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workflow_r1.errors import UserError
from workflow_r1.operators import OperatorSpec
from workflow_r1.rollout import RolloutLimits

BUILT_IN = Path(__file__).with_name("prompt.jinja")
_OWN = ("system", "developer")  # roles of a message that stands in place of ours


class PromptError(UserError):
    """A prompt template that cannot be used: one sentence that says what to do."""


@dataclass(frozen=True)
class PolicyPrompt:
    """What a policy reads before its first turn.

    Attributes:
        system: the system message; None leaves it out.
    """

    system: str | None

    @classmethod
    def of(cls, setting: str, operators: Sequence[OperatorSpec], limits: RolloutLimits) -> "PolicyPrompt":
        """The prompt that `workflow_r1.prompt` names: `default`, `none`, or a template's file.

        Raises:
            PromptError: as `render_system_prompt`.
        """
        if setting == "none":
            return cls(None)
        return cls(
            render_system_prompt(operators, limits, BUILT_IN if setting == "default" else Path(setting).expanduser())
        )

    def messages(self, row: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The chat messages for those of a row, behind the system message where the row brings none of its own."""
        own = [dict(message) for message in row]
        if self.system is None or any(message["role"] in _OWN for message in own):
            return own
        return [{"role": "system", "content": self.system}, *own]


def render_system_prompt(operators: Sequence[OperatorSpec], limits: RolloutLimits, template: Path = BUILT_IN) -> str:
    """The system prompt for a pool of operators.

    Args:
        operators: the declarations on offer, such as `OperatorPool.specs`.
        template: a Jinja template, run in a sandbox. It sees `operators`, and the limits by their names, such as
            `max_calls`; of an operator it mostly needs `name`, `use_when`, `input_form` and `inputs`.

    Raises:
        PromptError: the template cannot be read or rendered, or leaves an operator out.
    """
    try:
        source = template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PromptError(
            f"The prompt template {template} cannot be read: {reason}. A prompt is default, none, or a template's file."
        ) from None
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        prompt = environment.from_string(source).render(operators=list(operators), **dict(limits))
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
