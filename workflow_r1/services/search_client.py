"""Search behind an HTTP API that takes and gives JSON in Serper's shape."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from workflow_r1.services.complaint import read_complaint
from workflow_r1.services.completion import MalformedReplyError
from workflow_r1.services.connection_faults import service_at
from workflow_r1.services.faults import Wording, status_fault
from workflow_r1.services.http_client import http_client
from workflow_r1.services.limiter import Admission
from workflow_r1.services.request import ChatRequest, Reply
from workflow_r1.services.service import SearchSettings
from workflow_r1.services.service_client import ServiceClient

if TYPE_CHECKING:
    import httpx2

NOTHING_FOUND = "Nothing was found."


class SearchClient(ServiceClient):
    """Searches for the last message of a request; the reply is the results as text, best first."""

    def __init__(self, search: SearchSettings, admission: Admission) -> None:
        self._url, self._results = search.url or "", search.results
        self._headers = {"X-API-KEY": search.api_key.get_secret_value()}
        self._timeout = search.attempt_timeout
        self._opened: httpx2.AsyncClient | None = None
        wording = Wording(
            service=service_at("The search endpoint", self._url),
            url=self._url,
            url_setting="SEARCH_URL",
            key_setting="SEARCH_API_KEY",
            secret=search.api_key,
        )
        super().__init__(search, admission, wording)

    async def _request(self, request: ChatRequest) -> Reply:
        if self._opened is None:
            self._opened = http_client(self._url, self._timeout)
        query = {"q": request.messages[-1]["content"], "num": self._results}
        # A redirect to another host would take the key along.
        response = await self._opened.post(self._url, json=query, headers=self._headers, follow_redirects=False)
        if response.status_code != 200:
            complaint = read_complaint(response.text)
            raise status_fault(response.status_code, complaint, response.headers, self._wording)
        try:
            return Reply(_Results.model_validate_json(response.content).as_text(self._results))
        except ValidationError:
            raise MalformedReplyError from None

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()


def passage_list(passages: list[tuple[str, str]]) -> str:
    """Titles and texts as the policy reads them."""
    if not passages:
        return NOTHING_FOUND
    return "\n\n".join(
        f"[{number}] {title}\n{text}" if title else f"[{number}] {text}"
        for number, (title, text) in enumerate(passages, start=1)
    )


class _Organic(BaseModel):
    title: str = ""
    snippet: str = ""


class _AnswerBox(BaseModel):
    title: str = ""
    answer: str = ""
    snippet: str = ""


class _KnowledgeGraph(BaseModel):
    title: str = ""
    type: str = ""
    description: str = ""


class _Results(BaseModel):
    """The part of the response that is read."""

    organic: list[_Organic]
    answer_box: _AnswerBox | None = Field(default=None, alias="answerBox")
    knowledge_graph: _KnowledgeGraph | None = Field(default=None, alias="knowledgeGraph")

    def as_text(self, most: int) -> str:
        passages = [(result.title, result.snippet) for result in self.organic if result.title or result.snippet]
        if (graph := self.knowledge_graph) and graph.title:
            title = f"{graph.title} ({graph.type})" if graph.type else graph.title
            passages.insert(0, (title, graph.description))
        if (box := self.answer_box) and (box.answer or box.snippet):
            passages.insert(0, (box.title, box.answer or box.snippet))
        return passage_list(passages[:most])
