"""What the operators of one event loop ask, by name: the clients of the services, opened together."""

from workflow_r1.services.cache import CachingClient, ReplyCache
from workflow_r1.services.client import ChatClient
from workflow_r1.services.corpus import CorpusClient, open_corpus
from workflow_r1.services.limiter import Limiter, Slot
from workflow_r1.services.request import ChatRequest, Completes, Tally
from workflow_r1.services.result import OperatorResult
from workflow_r1.services.run_connection import RunConnection
from workflow_r1.services.search_client import SearchClient
from workflow_r1.services.service import EndpointSettings, SearchSettings
from workflow_r1.services.settings import OperatorSettings

PATIENCE = 30.0  # seconds in which a run's coordinator has to be there


class Services:
    """The clients of the services in the settings, each from its first request on."""

    def __init__(self, settings: OperatorSettings, cache: ReplyCache | None) -> None:
        self._settings, self._cache = settings, cache
        self._run = RunConnection(settings.run_dir, PATIENCE) if settings.run_dir else None
        self._clients: dict[str, Completes] = {}

    async def complete(self, request: ChatRequest, tally: Tally) -> str:
        """As `ServiceClient.complete` of the service that the request names."""
        if request.service not in self._clients:
            self._clients[request.service] = self._open(request.service)
        return await self._clients[request.service].complete(request, tally)

    async def record(self, result: OperatorResult) -> None:
        """Tell the run's ledger, if there is one."""
        if self._run is not None:
            await self._run.record(result)

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        if self._run is not None:
            await self._run.aclose()

    def _open(self, name: str) -> Completes:
        service = self._settings.services[name]
        admission = Limiter(service) if self._run is None else _SharedAdmission(self._run, name)
        if isinstance(service, EndpointSettings):
            return self._cached(ChatClient(service, admission, name), service.base_url)
        assert isinstance(service, SearchSettings)
        if service.index is not None:
            return CorpusClient(open_corpus(service.index), service.results)
        return self._cached(SearchClient(service, admission), f"{service.url} {service.results}")

    def _cached(self, client: Completes, address: str) -> Completes:
        if self._cache is None:
            return client
        return CachingClient(client, self._cache, address, self._settings.cache_sampled)


class _SharedAdmission:
    """The `Admission` to a service whose limits a run's processes keep together."""

    def __init__(self, run: RunConnection, service: str) -> None:
        self._run, self._service = run, service

    async def acquire(self, trajectory: str, tokens: int) -> Slot:
        return await self._run.acquire(self._service, trajectory, tokens)
