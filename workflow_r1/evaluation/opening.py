"""From settings to something that can be asked: endpoints are reached and checkpoints served beforehand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from workflow_r1.evaluation.checkpoint import merged_checkpoint
from workflow_r1.evaluation.config import PolicySettings, RunSettings
from workflow_r1.evaluation.endpoint import PolicyEndpoint
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.evaluation.serving import MODEL_NAME, machine_environment, served_checkpoint
from workflow_r1.evaluation.session import PolicySampling
from workflow_r1.evaluation.systems import Baseline, Policy, System
from workflow_r1.policy.chat_format import ChatFormat, ChatFormatError, read_chat_format, usable_template
from workflow_r1.policy.tokenizer import TokenizerError, load_tokenizer, lost_text_note

Report = Callable[[str], None]


@asynccontextmanager
async def open_system(settings: RunSettings, folder: Path, report: Report) -> AsyncIterator[System]:
    """The policy or the baseline of a run.

    Args:
        folder: where the server's log goes, if one has to be started.
        report: gets a sentence on what is being waited for.

    Raises:
        EvaluationError: the policy cannot be served or reached.
        OperatorEndpointError: the operators' endpoint cannot be reached.
    """
    if settings.baseline is None:
        async with open_policy(settings, folder, report) as policy:
            yield policy
        return
    async with settings.operator_pool() as operators:
        await operators.check()
        yield Baseline(settings.baseline, operators)


@asynccontextmanager
async def open_policy(settings: PolicySettings, folder: Path, report: Report) -> AsyncIterator[Policy]:
    """As `open_system`, for a policy."""
    async with settings.operator_pool() as operators:
        prompt = settings.policy_prompt()
        await operators.check()
        async with AsyncExitStack() as stack:
            endpoint, chat = await _endpoint(settings, folder, report, stack)
            try:
                await (endpoint.connect() if chat is None else endpoint.find_model())
                yield Policy(
                    endpoint,
                    operators,
                    prompt,
                    PolicySampling(settings.temperature, settings.top_p, settings.max_response_tokens),
                    settings.limits,
                    chat,
                )
            finally:
                await endpoint.aclose()


async def _endpoint(
    settings: PolicySettings, folder: Path, report: Report, stack: AsyncExitStack
) -> tuple[PolicyEndpoint, ChatFormat | None]:
    if settings.is_endpoint:
        return PolicyEndpoint(settings.policy or "", settings.model, request=settings.request), None
    environ, log = machine_environment(), folder / "vllm.log"
    report(f"Preparing {settings.policy}.")
    checkpoint = await merged_checkpoint(settings.checkpoint(), environ)
    chat, note = await asyncio.to_thread(
        _chat_format, checkpoint, settings.trusts_remote_code, settings.template_arguments
    )
    if note:
        report(note)
    report(f"Starting vLLM for {checkpoint}; its log is {log}.")
    served = await stack.enter_async_context(served_checkpoint(checkpoint, log, environ, settings.serve_arguments))
    return PolicyEndpoint(served.base_url, MODEL_NAME, served.api_key), chat


def _chat_format(checkpoint: str, trust_remote_code: bool, arguments: dict[str, Any]) -> tuple[ChatFormat, str | None]:
    """How a checkpoint's tokens are laid out, with the chat template that training gives a model that lacks one.

    Returns:
        it, and a sentence on the text that the tokenizer loses, if it loses any.

    Raises:
        EvaluationError: the model cannot be a policy.
    """
    try:
        tokenizer = load_tokenizer(checkpoint, trust_remote_code, "--serve-arguments '--trust-remote-code'")
        template = usable_template(tokenizer, arguments)
        chat = read_chat_format(tokenizer, arguments | ({"chat_template": template} if template else {}))
        return chat, lost_text_note(tokenizer)
    except (TokenizerError, ChatFormatError) as error:
        raise EvaluationError(f"The model {checkpoint} cannot be a policy: {error}.") from None
