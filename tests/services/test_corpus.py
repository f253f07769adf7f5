"""The local corpus: every passage is found by its own words, in any language, or the build says why not."""

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.operators import OperatorConfigError
from workflow_r1.services.corpus import Corpus, index_passages
from workflow_r1.services.words import passage_words, query_words


def build(tmp_path, *passages, name="index"):
    source = tmp_path / f"{name}.jsonl"
    source.write_text("\n".join(json.dumps(passage, ensure_ascii=False) for passage in passages), encoding="utf-8")
    report = index_passages(source, tmp_path / name)
    return Corpus(tmp_path / name), report


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("首都", "tokyo"),
        ("東京", "tokyo"),
        ("都", "tokyo"),
        ("黒猫", "cat"),
        ("猫", "cat"),
        ("ﾈｺ", "katakana"),
        ("北京大学", "beijing"),
        ("서울", "seoul"),
        ("กรุงเทพ", "bangkok"),
        ("हिन्दी", "hindi"),
        ("москва", "moscow"),
        ("cafe", "cafe"),
        ("CAFÉ", "cafe"),
        ("1984", "year"),
        ("vitamin C", "vitamin"),
        ("C", "vitamin"),
        ("7", "number"),
        ("iPhone", "phone"),
        ("手机", "phone"),
        ("Paris's", "paris"),
    ],
)
def test_a_passage_is_found_by_its_words_in_any_script(corpus, query, found):
    assert corpus.search(query, 1)[0][0] == found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    texts = {
        "tokyo": "東京は日本の首都です。",
        "cat": "黒猫が好き",
        "katakana": "ネコの本",
        "beijing": "他在北京大学读书。",
        "seoul": "서울은 한국의 수도이다",
        "bangkok": "กรุงเทพมหานครเป็นเมืองหลวง",
        "hindi": "हिन्दी एक भाषा है",
        "moscow": "Москва — столица России",
        "cafe": "The Café de Flore",
        "year": "1984 is a novel",
        "vitamin": "vitamin C prevents scurvy",
        "number": "the 7 dwarfs",
        "phone": "iPhone手机很贵",
        "paris": "Paris on the river",
    }
    passages = [{"title": title, "text": text} for title, text in texts.items()]
    return build(tmp_path_factory.mktemp("corpus"), *passages)[0]


@pytest.mark.parametrize("query", ["", "the", "?!", "xylophone", "鬱", "don't"])
def test_what_no_passage_has_finds_nothing(corpus, query):
    assert corpus.search(query, 3) == []


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(texts, min_size=1, max_size=4))
def test_a_query_of_a_passages_own_text_has_only_words_of_the_passage(parts):
    text = " ".join(parts)
    assert set(query_words(text)) <= set(passage_words(text))


def test_every_passage_is_returned_as_it_was_under_its_own_words(tmp_path):
    odd = [
        "line\nbreak\u2028here",
        "\x00 nul",
        '"quoted" \\ back',
        "emoji 🎉",
        "x" * 100_000,
        "tab\there",
        "</info>",
        "\r",
    ]
    passages = [{"title": f"title{number}", "text": text} for number, text in enumerate(odd)]
    found, report = build(tmp_path, *passages)
    assert report == (len(odd), 0)
    for number, text in enumerate(odd):
        assert found.search(f"title{number}", 1) == [(f"title{number}", text.strip())]


def test_rows_of_every_kind_of_file_are_read(tmp_path):
    rows = [{"id": 1, "contents": '"Danube"\nFlows through Vienna.'}, {"id": 1, "text": 1984, "title": None}]
    (tmp_path / "bom.jsonl").write_text("\ufeff" + "\r\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    same = [{"text": "Flows through Vienna.", "title": "Danube", "vector": [0.5]}, {"text": "1984", "vector": None}]
    pq.write_table(pa.Table.from_pylist(same), tmp_path / "a.parquet")
    for name in ("bom.jsonl", "list.json", "a.parquet"):
        assert index_passages(tmp_path / name, tmp_path / "index") == (2, 0)
        corpus = Corpus(tmp_path / "index")
        assert corpus.search("vienna", 5) == [("Danube", "Flows through Vienna.")]
        assert corpus.search("1984", 5) == [("", "1984")]


def test_passages_that_no_search_can_find_are_counted(tmp_path):
    found, report = build(tmp_path, {"text": "the"}, {"text": ""}, {"text": "Paris"}, {"text": "?!"})
    assert report == (4, 3)
    assert found.search("Paris", 4) == [("", "Paris")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\n\n", "holds no passages with a word"),
        (b'{"text": "the"}\n{"text": "of and to"}', "holds no passages with a word"),
        (b'{"text": "a b"}\n{"text"', "line 2 is malformed JSON"),
        (b'{"text": "x"}\n{"text": "\\ud800"}', r"row 1 \(the first is 0\), has text that is not Unicode"),
        (b'{"text": "x", "title": "\\udfff"}', r"row 0 \(the first is 0\), has text that is not Unicode"),
        (b'{"text": "x", "title": ["y"]}', "has a value that is neither text nor a number"),
        (b'{"text": ' + b"[" * 9000 + b"]" * 9000 + b"}", "nested too deeply"),
        (b'{"text": ' + b"9" * 9000 + b"}", "too many digits"),
        (b'{"body": "x"}', r"row 0 \(the first is 0\), is no passage"),
        (b'{"contents": null}', r"row 0 \(the first is 0\), is no passage"),
        (b'{"text": null, "title": "x"}', r"row 0 \(the first is 0\), is no passage"),
        (b"[1]", "line 1 is malformed JSON: expected an object"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ('{"text": "x"}'.encode("utf-16"), "is UTF-16 text"),
        (b'{"text": "\xe9"}', "is neither Parquet nor JSON in UTF-8"),
        (None, r"cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_indexed_whole_is_one_sentence_and_leaves_the_index_that_there_was(
    tmp_path, content, complaint
):
    before, _ = build(tmp_path, {"text": "Paris"})
    source = tmp_path / "broken.jsonl"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(OperatorConfigError, match=complaint) as error:
        index_passages(source, tmp_path / "index")
    assert "\n" not in str(error.value)
    assert len(Corpus(tmp_path / "index")) == len(before) == 1
    assert not (tmp_path / "index" / ".partial").exists()


def test_an_index_of_an_older_version_or_without_all_its_files_is_refused(tmp_path):
    build(tmp_path, {"text": "Paris"}, {"text": "Rome"})
    folder = tmp_path / "index"
    manifest, corpus = (folder / "manifest.json").read_bytes(), (folder / "corpus.jsonl").read_bytes()
    damages = [
        ("manifest.json", None),
        ("manifest.json", manifest.replace(b'"format":2', b'"format":1')),
        ("corpus.jsonl", corpus[: len(corpus) // 2]),
        ("corpus.jsonl", None),
    ]
    for name, content in damages:
        whole = (folder / name).read_bytes()
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        with pytest.raises(
            OperatorConfigError, match=r"is not whole, or of an older version: build it again with 'wor"
        ):
            Corpus(folder)
        (folder / name).write_bytes(whole)
    assert len(Corpus(folder)) == 2


def test_a_build_replaces_an_index_under_those_who_search_it_and_two_at_once_leave_one_of_them(tmp_path):
    before, _ = build(tmp_path, *({"text": f"old {number}"} for number in range(50)))
    sources = []
    for count in (20, 30):
        sources.append(tmp_path / f"{count}.jsonl")
        sources[-1].write_text("\n".join(json.dumps({"text": f"new{count} {number}"}) for number in range(count)))
    (tmp_path / "index" / ".partial").mkdir()  # of a build that was killed
    builds = [threading.Thread(target=index_passages, args=(source, tmp_path / "index")) for source in sources]
    for thread in builds:
        thread.start()
    for thread in builds:
        thread.join()
    after = Corpus(tmp_path / "index")
    assert (len(after), after.search(f"new{len(after)}", 1)[0][1][:5]) in [(20, "new20"), (30, "new30")]
    assert not (tmp_path / "index" / ".partial").exists()
    assert before.search("old", 1)[0][1].startswith("old")


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "passages.jsonl").write_text('{"text": "Paris"}')
    with pytest.raises(
        OperatorConfigError, match=r"^Cannot write the search index to .*passages.jsonl: File exists\.$"
    ):
        index_passages(tmp_path / "passages.jsonl", tmp_path / "passages.jsonl")
