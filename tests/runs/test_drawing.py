"""The graph of a workflow: what stands in it, and that it becomes a picture."""

from workflow_r1.runs.drawing import draw_workflow, workflow_rows
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn

CALLS = [
    CallRecord(operator="Search", input="film", output="a list"),
    CallRecord(operator="Review", input="x", output="y"),
]


def trajectory(*turns: Turn, ended_by: EndedBy = EndedBy.ANSWERED, **more: object) -> Trajectory:
    return Trajectory(question="which $5 film?", turns=list(turns), ended_by=ended_by, **more)


def titles(drawn: Trajectory) -> list[list[str]]:
    return [[node.title for node in row] for row in workflow_rows(drawn)]


def test_the_calls_of_one_turn_stand_side_by_side_between_question_and_answer():
    drawn = trajectory(Turn(text="t", calls=CALLS), Turn(text="t", answer="Jaws"))
    assert titles(drawn) == [["question"], ["Search", "Review"], ["answer"]]
    assert [node.reads for node in workflow_rows(drawn)[1]] == ["a list", "y"]


def test_malformed_turns_and_missing_answers_are_in_the_graph():
    drawn = trajectory(Turn(text="??", error="No tags."), Turn(text="over"), ended_by=EndedBy.CALL_LIMIT)
    assert titles(drawn) == [["question"], ["malformed turn"], ["call that was not made"], ["no answer"]]
    assert workflow_rows(drawn)[-1][0].text == "call limit"


def test_a_wrong_answer_shows_the_gold_one_in_another_colour():
    (right,), (wrong,) = (
        workflow_rows(trajectory(Turn(text="t", answer="Jaws"), golds=["Alien"], reward={"acc": acc}))[-1]
        for acc in (1.0, 0.0)
    )
    assert right.text == "Jaws"
    assert wrong.text == "Jaws\n(gold: Alien)"
    assert (right.kind, wrong.kind) == ("right", "wrong")


def test_any_text_can_be_drawn(tmp_path):
    odd = CallRecord(operator="Custom_one", input="<query>100 $ & 5 % of \\x_1?</query>" * 9, output="", failed=True)
    draw_workflow(trajectory(Turn(text="t", calls=[odd, *CALLS]), Turn(text="t", answer="Curaçao")), tmp_path / "w.svg")
    picture = (tmp_path / "w.svg").read_text()
    assert picture.count("<svg") == 1
