from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn, read_jsonl, write_jsonl

_TEXT = st.text(max_size=20)
_NUMBERS = st.integers(0, 10_000)
_CALLS = st.builds(
    CallRecord,
    operator=_TEXT,
    input=_TEXT,
    output=_TEXT,
    failed=st.booleans(),
    error=st.none() | _TEXT,
    seconds=st.floats(0, 100),
    prompt_tokens=_NUMBERS,
    completion_tokens=_NUMBERS,
)
_TURNS = st.builds(
    Turn,
    text=_TEXT,
    tokens=st.tuples(_NUMBERS, _NUMBERS),
    think=_TEXT,
    calls=st.lists(_CALLS, max_size=2),
    answer=st.none() | _TEXT,
    error=st.none() | _TEXT,
    reward=st.none() | st.floats(-1, 1),
    generate_seconds=st.floats(0, 100),
    operator_seconds=st.floats(0, 100),
)
_TRAJECTORIES = st.builds(
    Trajectory,
    question=_TEXT,
    turns=st.lists(_TURNS, max_size=3),
    ended_by=st.sampled_from(EndedBy),
    data_source=_TEXT,
    golds=st.lists(_TEXT, max_size=2),
    reward=st.dictionaries(_TEXT, st.floats(-1, 1), max_size=2),
)


@given(st.lists(_TRAJECTORIES, max_size=3))
def test_trajectories_come_back_from_jsonl_as_they_went(tmp_path_factory, trajectories):
    path = tmp_path_factory.mktemp("trajectories") / "t.jsonl"
    write_jsonl(path, trajectories)
    assert list(read_jsonl(path)) == trajectories


def test_text_that_nothing_can_encode_does_not_end_a_run(tmp_path):
    broken, mended = "a\ud83d", "a\ufffd"
    call = CallRecord(operator=broken, input=broken, output=broken, error=broken)
    turn = Turn(text=broken, think=broken, answer=broken, calls=[call])
    write_jsonl(tmp_path / "t.jsonl", [Trajectory(question=broken, turns=[turn], ended_by=EndedBy.ANSWERED)])
    [read] = read_jsonl(tmp_path / "t.jsonl")
    assert (read.question, read.answer, read.calls[0].error, read.calls[0].output) == (mended,) * 4


def test_text_that_was_assigned_later_does_not_end_a_run_either(tmp_path):
    broken, mended = "a\ud83d", "a\ufffd"
    trajectory = Trajectory(question="q", ended_by=EndedBy.ANSWERED)
    trajectory.question = trajectory.data_source = broken
    trajectory.golds, trajectory.reward = [broken], {broken: 1.0}
    write_jsonl(tmp_path / "t.jsonl", [trajectory])
    [read] = read_jsonl(tmp_path / "t.jsonl")
    assert (read.question, read.data_source, read.golds, read.reward) == (mended, mended, [mended], {mended: 1.0})


def test_writing_appends(tmp_path):
    path = tmp_path / "t.jsonl"
    for question in ("first", "second"):
        write_jsonl(path, [Trajectory(question=question, ended_by=EndedBy.ANSWERED)])
    assert [trajectory.question for trajectory in read_jsonl(path)] == ["first", "second"]


def test_the_answer_is_the_last_turns():
    turns = [Turn(text="", error="broken"), Turn(text="", answer="Paris")]
    trajectory = Trajectory(question="q", turns=turns, ended_by=EndedBy.ANSWERED)
    assert trajectory.answer == "Paris"
    assert trajectory.num_malformed == 1
    assert Trajectory(question="q", ended_by=EndedBy.LENGTH_LIMIT).answer is None


def test_a_turn_starts_from_what_the_turn_before_it_asked_for():
    def calls(*made: tuple[str, str]) -> Turn:
        return Turn(text="", calls=[CallRecord(operator=name, input=text, output="o") for name, text in made])

    first, same = calls(("Search", " Who\n wrote  IT? ")), calls(("Search", "who wrote it?"))
    other, both = calls(("Search", "who wrote?")), calls(("Search", "who wrote it?"), ("Review", "x"))
    turns = [first, same, other, both, Turn(text="", error="broken"), Turn(text="", answer="x")]
    question, *after = Trajectory(question="q", turns=turns, ended_by=EndedBy.ANSWERED).states
    assert after[0] == after[1]
    assert len({question, *after}) == 5
    assert Trajectory(question="q", ended_by=EndedBy.LENGTH_LIMIT).states == []
