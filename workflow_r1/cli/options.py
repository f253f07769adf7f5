"""The flags that `workflow-r1 eval` and `workflow-r1 ask` share, and what they say as settings."""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from workflow_r1.evaluation.errors import EvaluationError

_POLICY, _ROLLOUT, _OPERATORS = "Policy", "Bounds of a trajectory", "Operators and prices"

PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="What answers: the URL of an OpenAI-compatible endpoint (its key is read from POLICY_API_KEY); a "
        "checkpoint's folder, Hugging Face's or verl's (a run, a global_step_N), which vLLM then serves on this "
        "machine; or a Hugging Face model id.",
        rich_help_panel=_POLICY,
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="The name that the endpoint serves the policy under, if it serves several models.",
        rich_help_panel=_POLICY,
        show_default=False,
    ),
]
RequestOption = Annotated[
    str | None,
    typer.Option(
        help="Fields of every request to the policy's endpoint as JSON, for models that refuse some of ours: "
        '\'{"max_tokens": null, "max_completion_tokens": 4096, "temperature": 1}\'. A null leaves the field out.',
        rich_help_panel=_POLICY,
        show_default=False,
    ),
]
PromptOption = Annotated[
    str,
    typer.Option(
        help="The system prompt's Jinja template: a file; 'default' for the built-in one; 'none' to send the bare "
        "question, as the embedded world's policy is trained.",
        rich_help_panel=_POLICY,
    ),
]
TemperatureOption = Annotated[float, typer.Option(min=0, help="0 is greedy decoding.", rich_help_panel=_POLICY)]
TopPOption = Annotated[float, typer.Option(min=0, max=1, help="Nucleus sampling.", rich_help_panel=_POLICY)]
SeedOption = Annotated[int, typer.Option(help="Of sampling, at a temperature above 0.", rich_help_panel=_POLICY)]
ServeArgumentsOption = Annotated[
    str,
    typer.Option(
        help="More arguments of 'vllm serve' for a checkpoint, such as '--tensor-parallel-size 2'.",
        rich_help_panel=_POLICY,
        show_default=False,
    ),
]
MaxCallsOption = Annotated[int, typer.Option(min=1, help="Operator calls.", rich_help_panel=_ROLLOUT)]
MaxTurnsOption = Annotated[
    int, typer.Option(min=1, help="Turns; the last one has to answer.", rich_help_panel=_ROLLOUT)
]
MaxParallelCallsOption = Annotated[
    int, typer.Option(min=1, help="Operator calls in one turn.", rich_help_panel=_ROLLOUT)
]
MaxResponseTokensOption = Annotated[
    int, typer.Option(min=1, help="Tokens of all turns and observations together.", rich_help_panel=_ROLLOUT)
]
OperatorsOption = Annotated[
    str | None,
    typer.Option(
        help="The operators on offer, as A,B,C. Default: all but Search.",
        rich_help_panel=_OPERATORS,
        show_default=False,
    ),
]
OperatorModuleOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A Python module that declares operators of one's own, once or more often.",
        rich_help_panel=_OPERATORS,
        show_default=False,
    ),
]
SearchOption = Annotated[
    bool, typer.Option("--search", help="Offer the Search operator too.", rich_help_panel=_OPERATORS)
]
PolicyPriceOption = Annotated[
    str,
    typer.Option(
        help="US dollars per million prompt and completion tokens of the policy, as IN,OUT.", rich_help_panel=_OPERATORS
    ),
]
OperatorPriceOption = Annotated[
    str, typer.Option(help="The same for the operators' model.", rich_help_panel=_OPERATORS)
]


def settings_values(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `PolicySettings` or `RunSettings` that a command's flags stand for.

    Args:
        flags: by parameter name, as `typer.Context.params` has them. Those that are no setting are left out.

    Raises:
        EvaluationError: a price is not two numbers.
    """
    values = {name: value for name, value in flags.items() if name in _AS_THEY_ARE}
    values["benchmarks"] = flags.get("benchmark")
    values["serve_arguments"] = shlex.split(flags["serve_arguments"])
    values["limits"] = {name: flags[name] for name in ("max_turns", "max_calls", "max_parallel_calls")}
    values["operator_names"] = [name.strip() for name in flags["operators"].split(",")] if flags["operators"] else None
    values["operator_modules"] = flags["operator_module"]
    values["policy_prompt_price"], values["policy_completion_price"] = _price("--policy-price", flags["policy_price"])
    prompt_price, completion_price = _price("--operator-price", flags["operator_price"])
    values["operators"] = {"prompt_price": prompt_price, "completion_price": completion_price}
    return {name: value for name, value in values.items() if value is not None}


_AS_THEY_ARE = {
    *("policy", "model", "request", "prompt", "temperature", "top_p", "seed", "max_response_tokens", "search"),
    *("baseline", "limit", "data_seed", "samples", "concurrency"),
}


def _price(flag: str, text: str) -> tuple[float, float]:
    try:
        prompt, completion = map(float, text.split(","))
    except ValueError:
        raise EvaluationError(f"{flag} takes two numbers, as IN,OUT (such as 0.15,0.6), not {text!r}.") from None
    return prompt, completion
