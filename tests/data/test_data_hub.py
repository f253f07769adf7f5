"""The Hub, as `datasets` and `huggingface_hub` really talk to it: a small one on 127.0.0.1, then none."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

# Both libraries read HF_ENDPOINT at import, so all of this happens in a process of its own.
SCRIPT = """
    import hashlib, json, os, re, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.parse import unquote, urlparse

    REVISION = "a" * 40
    NQ = b'{"id": "test_0", "question": "who wrote emma", "golden_answers": ["Jane Austen"]}\\n'
    QUIZ = b'{"question": "is it?", "answer": "yes"}\\n'
    README = b"---\\nconfigs:\\n- config_name: small\\n  data_files:\\n  - split: dev\\n    path: a/b.jsonl\\n---\\n"
    HUB = {
        "RUC-NLPIR/FlashRAG_datasets": {"nq/test.jsonl": NQ},
        "some/quiz": {"README.md": README, "a/b.jsonl": QUIZ},
        "some/plain": {"train.jsonl": QUIZ, "test.jsonl": QUIZ},
    }

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, code, body=b"", **headers):
            self.send_response(code)
            headers |= {"Content-Length": len(body), "X-Repo-Commit": REVISION, "Connection": "close"}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self):
            path = unquote(urlparse(self.path).path)
            address = re.match("(/api)?/datasets/([^/]+/[^/]+)", path)
            files = HUB.get(address[2]) if address else None
            if files is None:
                return self.reply(404, **{"X-Error-Code": "RepoNotFound"})
            if found := re.search("/resolve/[^/]+/(.+)", path):
                content = files.get(found[1])
                if content is None:
                    return self.reply(404, **{"X-Error-Code": "EntryNotFound"})
                return self.reply(200, content, ETag='"%s"' % hashlib.sha1(content).hexdigest())
            if found := re.search("/tree/[^/]+/?(.*)", path):
                tree = [{"type": "file", "path": name, "size": len(text), "oid": hashlib.sha1(text).hexdigest()}
                        for name, text in files.items() if name.startswith(found[1])]
                return self.reply(200, json.dumps(tree).encode())
            siblings = [{"rfilename": name} for name in files]
            self.reply(200, json.dumps({"id": address[2], "sha": REVISION, "siblings": siblings}).encode())

        do_HEAD = do_GET

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
            files = HUB[re.match("/api/datasets/([^/]+/[^/]+)", self.path)[1]]
            found = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40}
                     for name in asked.get("paths", []) if name in files]
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"

    import huggingface_hub
    from workflow_r1.data.benchmarks import load_benchmark
    from workflow_r1.data.errors import DataError

    def outcome(source):
        try:
            return [[e.id, e.question, e.golds, e.data_source] for e in load_benchmark(source)]
        except DataError as error:
            return str(error)

    sources = ["nq", "some/plain", "some/quiz", "some/quiz/small:dev", "some/quiz/large", "some/nothing", "musique"]
    answers = {"online": {source: outcome(source) for source in sources}}
    server.shutdown()
    server.server_close()
    time.sleep = lambda seconds: None  # huggingface_hub waits half a minute over its retries
    answers["offline"] = {source: outcome(source) for source in ["nq", "some/plain", "musique"]}
    os.environ["ALL_PROXY"] = "socks5://user:secret@127.0.0.1:9"
    huggingface_hub.close_session()
    answers["socks"] = outcome("some/plain")
    print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_HOME": str(tmp_path_factory.mktemp("hub")), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


NQ = [["test_0", "who wrote emma", ["Jane Austen"], "nq"]]


def test_a_benchmark_is_downloaded_by_name(answers):
    assert answers["online"]["nq"] == NQ


def test_a_benchmark_once_downloaded_needs_no_network(answers):
    assert answers["offline"]["nq"] == NQ


@pytest.mark.parametrize(("source", "name"), [("some/quiz", "quiz"), ("some/quiz/small:dev", "quiz_small")])
def test_a_dataset_is_found_by_the_splits_of_its_card(answers, source, name):
    assert answers["online"][source] == [[f"{name}_0", "is it?", ["yes"], name]]


def test_a_dataset_without_a_card_is_found_by_its_file_names(answers):
    assert answers["online"]["some/plain"] == [["plain_0", "is it?", ["yes"], "plain"]]


def test_a_wrong_dataset_id_and_a_wrong_configuration_each_get_a_sentence(answers):
    assert answers["online"]["some/nothing"].startswith(
        "There is no path 'some/nothing' here, and no public dataset of that name"
    )
    assert "'large' not found. Available: ['small']" in answers["online"]["some/quiz/large"]


def test_a_missing_file_of_a_dataset_is_named(answers):
    assert "could not be used" in answers["online"]["musique"]
    assert "musique/dev.jsonl" in answers["online"]["musique"]


@pytest.mark.parametrize(
    ("source", "dataset"), [("some/plain", "some/plain"), ("musique", "RUC-NLPIR/FlashRAG_datasets")]
)
def test_no_network_gets_a_sentence_that_says_what_to_do(answers, source, dataset):
    assert answers["offline"][source] == (
        f"The Hugging Face Hub cannot be reached for the dataset '{dataset}': check the network, HF_ENDPOINT and "
        "HF_HUB_OFFLINE, or give the path of a local copy."
    )


def test_a_socks_proxy_gets_a_sentence_that_says_what_to_install(answers):
    assert answers["socks"].startswith("The Hub dataset 'some/plain' could not be used: Using SOCKS proxy, but")
    assert "install httpx[socks]" in answers["socks"]
