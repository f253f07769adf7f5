"""Whether a service can be reached and serves what is asked of it."""

import asyncio

from workflow_r1.operators.client import ChatClient
from workflow_r1.operators.corpus import CorpusClient, open_corpus
from workflow_r1.operators.errors import OperatorEndpointError
from workflow_r1.operators.limiter import Limiter
from workflow_r1.operators.request import ChatRequest, Completes, Tally
from workflow_r1.operators.search_client import SearchClient
from workflow_r1.operators.service import EndpointSettings, SearchSettings
from workflow_r1.operators.settings import OperatorSettings

_PATIENCE = 30.0  # seconds


async def check_service(settings: OperatorSettings, name: str) -> float:
    """Make one small request to a service and return its round trip in seconds.

    Raises:
        OperatorEndpointError: one sentence that says what to do.
    """
    service = settings.services[name]
    patient = service.model_copy(update={"max_retries": 2, "call_timeout": min(_PATIENCE, service.call_timeout)})
    client, model, question = _client(patient, name)
    messages = [{"role": "user", "content": question}]
    started = asyncio.get_running_loop().time()
    try:
        await client.complete(ChatRequest(model, messages, temperature=0.0, max_tokens=16, service=name), Tally())
        return asyncio.get_running_loop().time() - started
    except OperatorEndpointError as error:
        if isinstance(client, ChatClient) and error.status in (400, 404) and (models := await client.served_models()):
            raise OperatorEndpointError(f"{error} It serves: {', '.join(models)}.", status=error.status) from None
        raise
    finally:
        await client.aclose()


def _client(service: object, name: str) -> tuple[Completes, str, str]:
    if isinstance(service, EndpointSettings):
        return ChatClient(service, Limiter(service), name), service.model, "Reply with the one word: ready"
    assert isinstance(service, SearchSettings)
    if service.index is not None:
        return CorpusClient(open_corpus(service.index), service.results), "", "ready"
    return SearchClient(service, Limiter(service)), "", "ready"
