"""Whether a service can be reached and serves what is asked of it."""

import asyncio
from dataclasses import replace

from workflow_r1.services.chat_api import some_of
from workflow_r1.services.client import ChatClient
from workflow_r1.services.corpus import CorpusClient, open_corpus
from workflow_r1.services.errors import NoTextError, OperatorEndpointError
from workflow_r1.services.limiter import Limiter
from workflow_r1.services.request import ChatRequest, Completes, Sampling, Tally
from workflow_r1.services.search_client import SearchClient
from workflow_r1.services.service import EndpointSettings, SearchSettings
from workflow_r1.services.settings import OperatorSettings

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
    fields = patient.request if isinstance(patient, EndpointSettings) else {}
    request = ChatRequest(model, messages, temperature=0.0, max_tokens=16, service=name, fields=fields)
    started = asyncio.get_running_loop().time()
    try:
        try:
            await client.complete(request, Tally())
        except NoTextError:  # a model that thinks first gets as much room as operators give it
            started = asyncio.get_running_loop().time()
            await client.complete(replace(request, max_tokens=Sampling().max_tokens), Tally())
        return asyncio.get_running_loop().time() - started
    except OperatorEndpointError as error:
        if isinstance(client, ChatClient) and error.status in (400, 404) and (models := await client.served_models()):
            raise OperatorEndpointError(f"{error} It serves: {some_of(models)}.", status=error.status) from None
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
