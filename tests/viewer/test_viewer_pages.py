"""The pages over HTTP: what each shows, that hostile text stays text, and who may read them."""

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.recorded_run import QUESTIONS, add_step, call, make_run, trajectory, turn

from workflow_r1.evaluation.record import Record
from workflow_r1.runs.run_watch import WATCH_FILE, Warned
from workflow_r1.runs.stop import Stop, write_stop
from workflow_r1.trajectory import write_jsonl

Open = Callable[..., TestClient]
STEP = {"source": "run", "part": "train", "step": 1}


class Page(HTMLParser):
    """A page as a browser reads it: its text, its elements and its links."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.links = "", [], []
        self.feed(source)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name == "href"]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def read(client: TestClient, address: str, **parameters: object) -> Page:
    answer = client.get(address, params=parameters or None)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def group_link(client: TestClient, **parameters: object) -> str:
    return next(link for link in read(client, "/step", **(STEP | parameters)).links if link.startswith("/group"))


def test_every_link_leads_to_a_page(run: Path, open_pages: Open):
    client = open_pages(run.parent)
    waiting, seen = ["/"], set()
    while waiting:
        address = waiting.pop()
        if address in seen or len(seen) > 150:
            continue
        seen.add(address)
        answer = client.get(address)
        past_the_end = "line=9" in address
        assert answer.status_code == (404 if past_the_end else 200), address
        if answer.headers["content-type"].startswith("text/html"):
            waiting += [link for link in Page(answer.text).links if link.startswith("/")]
    assert {address.split("?")[0] for address in seen} >= {
        "/", "/run", "/step", "/group", "/trajectory", "/find", "/flips", "/operators", "/raw", "/static/style.css"
    }  # fmt: skip


def test_the_run_shows_its_curves_its_settings_and_why_it_stopped(run: Path, open_pages: Open):
    write_stop(run, Stop(reason="The budget is spent.", on_purpose=True))
    (run / WATCH_FILE).write_text(Warned(step=2, text="the entropy is gone.").model_dump_json() + "\n{")
    (run / "hydra/.hydra").mkdir(parents=True)
    (run / "hydra/.hydra/overrides.yaml").write_text("- seed=2\n- workflow_r1.operators.api_key=abc123\n")
    page = read(open_pages(run), "/run", source="run")
    assert "It stopped: The budget is spent." in page.words
    assert "Step 2: the entropy is gone." in page.words
    assert "seed=2" in page.words
    assert "abc123" not in page.text
    titles = {attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"}
    for title in ("Reward and its parts", "Clip fraction", "Entropy", "Spread of the ratio", "Seconds"):
        assert f"{title}, steps 1 to 3" in titles
    assert "acc, step 2: 0.5" in page.text


def test_a_metric_that_is_no_number_and_a_cost_without_prices_are_not_drawn(run: Path, open_pages: Open):
    (run / "metrics-001.jsonl").write_text('{"step":1,"data":{"actor/entropy":NaN,"operators/total/cost":0.0}}\n{"st')
    words = read(open_pages(run), "/run", source="run").words
    assert "Entropy" not in words
    assert "cost" not in words


def test_a_group_shows_all_rollouts_and_where_they_part(run: Path, open_pages: Open):
    client = open_pages(run)
    page = read(client, group_link(client))
    assert "1 turn(s) are the same in all" in page.words
    articles = [tag for tag, _ in page.tags if tag == "article"]
    parted = [attributes for tag, attributes in page.tags if tag == "li" and attributes.get("class") == "parts"]
    assert (len(articles), len(parted)) == (4, 4)
    assert "The same question at other steps" in page.words
    assert len([link for link in page.links if link.startswith("/group")]) == 3


def test_a_trajectory_shows_what_is_recorded_and_nothing_as_zero(run: Path, open_pages: Open):
    path = run / "trajectories/train/9.jsonl"
    told = turn(calls=[call()]).model_dump(mode="json") | {"advantage": 0.25, "mean_log_prob": -1.5}
    line = trajectory().model_copy(update={"turns": []}).model_dump(mode="json") | {"turns": [told]}
    path.write_text(json.dumps(line) + "\n")
    with path.open("a") as file:
        file.write('{"question":"older","turns":[{"text":"t","answer":"a"}]}\n')
    client = open_pages(run)
    place = STEP | {"step": 9}
    words = read(client, "/trajectory", **place, line=1).words
    for shown in ("advantage 0.25", "mean_log_prob -1.5", "generation 0.25 s", "tokens 10", "prompt tokens 70"):
        assert shown in words
    older = read(client, "/trajectory", **place, line=2).words
    assert "generation" not in older
    assert "tokens" not in older
    assert "0.00" not in older


def test_the_graph_and_the_transcript_are_linked(run: Path, open_pages: Open):
    page = read(open_pages(run), "/trajectory", **STEP, line=1)
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    anchors = {link[1:] for link in page.links if link.startswith("#turn")}
    assert anchors == {"turn-1", "turn-2"}
    assert anchors <= places


def test_a_filter_is_a_link_and_finds(run: Path, open_pages: Open):
    page = read(open_pages(run), "/find", source="run", step=2, most_reward=0, text="brastune")
    assert [link for link in page.links if link.startswith("/trajectory")] == [
        f"/trajectory?source=run&part=train&step=2&line={line}" for line in (3, 4)
    ]
    chosen = [attributes["value"] for tag, attributes in page.tags if tag == "option" and "selected" in attributes]
    assert chosen == ["run"]


def test_pages_of_a_long_list_hold_every_trajectory_once(run: Path, open_pages: Open):
    write_jsonl(run / "trajectories/train/9.jsonl", [trajectory(f"question {number}") for number in range(120)])
    client, address, lines = open_pages(run), "/find?step=9", []
    while address:
        page = read(client, address)
        lines += [link for link in page.links if link.startswith("/trajectory")]
        address = next((link for link in page.links if "start=" in link), None)
    assert len(lines) == len(set(lines)) == 120


def test_flips_between_two_evaluations(tmp_path: Path, open_pages: Open):
    for name, right in (("base", False), ("mine", True)):
        folder = tmp_path / "comparison" / name
        folder.mkdir(parents=True)
        record = Record(benchmark="nq", id="1", trajectory=trajectory(right=right))
        (folder / "results.jsonl").write_text(record.model_dump_json() + "\n")
    page = read(open_pages(tmp_path / "comparison"), "/flips", before="base/eval/0", after="mine/eval/0")
    assert "1 questions changed: 0 lost, 1 won" in page.words
    assert QUESTIONS[0] in page.words


def test_a_growing_run_shows_its_new_step(run: Path, open_pages: Open):
    client = open_pages(run)
    before = client.get("/state").json()
    add_step(run, 4)
    client.index.update()
    after = client.get("/state").json()
    assert after["version"] != before["version"]
    assert after["read"] == after["size"]
    assert "step 4" in read(client, "/run", source="run").words


HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>' autofocus onfocus='alert(1)",
    "```mermaid\ngraph TD; A[<b>x</b>]-->B\n```\n# heading [link](javascript:alert(1))",
    "{{ 7 * 7 }}{% raw %}${x}",
    "</pre></main></html><!-- ",
    "\x1b[31mred\x1b]0;title\x07",
    "a\u202egnp.exe\u2066\u200f",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "javascript:alert(1)",
    '<a href="http://evil.example/">click</a>',
    "\x00\ufffe\U0001f600",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_as_text_on_every_page(run: Path, open_pages: Open, text: str):
    bad = turn(text, calls=[call(operator=text, output=text, failed=True, error=text)]).model_copy(
        update={"think": text}
    )
    worst = trajectory(text, True, bad, turn(text, error=text), turn(text, answer=text)).model_copy(
        update={"data_source": text, "golds": [text], "reward": {text: 1.0, "reward": 1.0}, "unscored": text}
    )
    write_jsonl(run / "trajectories/train/9.jsonl", [worst])
    (run / "metrics-001.jsonl").write_text(
        json.dumps({"step": 1, "data": {f"reward/{text}": 1.0, f"val-core/{text}/acc/mean@1": 1.0}})
    )
    write_stop(run, Stop(reason=text, on_purpose=False))
    client = open_pages(run)
    place = STEP | {"step": 9}
    for address in (
        "/", "/run?source=run", "/step?source=run&part=train&step=9", group_link(client, step=9), "/find?step=9",
        "/trajectory?source=run&part=train&step=9&line=1", "/find?source=run&text=%3Cscript%3E",
    ):  # fmt: skip
        page = read(client, address)
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert {attributes.get("src") for tag, attributes in page.tags if tag == "script"} == {"/static/view.js"}
        assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "base"}
        assert all(re.match(r"/|#", link) for link in page.links), page.links
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", page.text)
    shown = read(client, "/trajectory", **place, line=1).text
    assert re.sub(r"\W", "", unescape(text)) in re.sub(r"\W", "", shown)


def test_a_megabyte_of_answer_is_a_small_page_and_all_of_it_a_click_away(run: Path, open_pages: Open):
    write_jsonl(run / "trajectories/train/9.jsonl", [trajectory("big", True, turn(answer="<b>" + "a" * 1_000_000))])
    client = open_pages(run)
    page = client.get("/trajectory", params=STEP | {"step": 9, "line": 1})
    assert len(page.text) < 30_000
    assert "1,000,003 characters" in page.text
    raw = client.get("/raw", params=STEP | {"step": 9, "line": 1})
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert "a" * 1_000_000 in raw.text


def test_a_broken_line_shows_itself_and_its_fault(run: Path, open_pages: Open):
    (run / "trajectories/train/9.jsonl").write_text('{"quest<script>\n')
    words = read(open_pages(run), "/trajectory", **(STEP | {"step": 9}), line=1).words
    assert "This line is no trajectory" in words
    assert '{"quest<script>' in words


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:4321"},
        {"host": "127.0.0.1:9999"},
        {"host": "127.0.0.1"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:4321"},
    ],
    ids=str,
)
def test_another_site_is_refused(run: Path, open_pages: Open, headers: dict):
    answer = open_pages(run).get("/run?source=run", headers=headers)
    assert answer.status_code == 403
    assert "step" not in answer.text


def test_the_own_page_is_answered_with_a_strict_policy(run: Path, open_pages: Open):
    client = open_pages(run)
    answer = client.get("/", headers={"origin": "http://127.0.0.1:4321"})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.post("/").status_code == 403


@pytest.mark.parametrize(
    "address",
    [
        "/static/../index.py",
        "/static/%2e%2e/index.py",
        "/static//etc/passwd",
        "/run?source=/etc",
        "/run?source=../../etc",
        "/step?source=run&part=..%2F..&step=1",
        "/step?source=run&part=train&step=x",
        "/trajectory?source=run&part=train&step=1&line=99",
        "/trajectory?source=run&part=train&step=1&line=99999999999999999999999",
        "/group?source=run&part=train&step=1&question=7",
        "/raw?source=run&part=train&step=1&line=-1",
        "/find?least_reward=x",
        "/find?start=-5",
        "/find?start=99999999999999999999999",
        "/flips?before=x&after=y",
        "/nothing",
    ],
)
def test_what_is_not_there_is_said_and_no_other_file_is_read(run: Path, open_pages: Open, address: str):
    answer = open_pages(run).get(address)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_runs_of_one_name_in_two_folders_are_both_there(tmp_path: Path, open_pages: Open):
    roots = [make_run((tmp_path / name / "run").resolve(), steps=1) for name in ("a", "b")]
    page = read(open_pages(*roots), "/")
    assert {link for link in page.links if link.startswith("/run")} == {
        f"/run?source={str(root).replace('/', '%2F')}" for root in roots
    }
