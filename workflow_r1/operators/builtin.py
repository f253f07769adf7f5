"""The built-in operators.

Every prompt asks for the result in a tag of the operators' own, never in one of the protocol's, so
that a reply can be read apart from the policy's turns.
"""

import re
from collections import Counter
from string import ascii_uppercase

from workflow_r1.operators.reply import extract_tag
from workflow_r1.operators.spec import Ask, InputField, Inputs, OperatorSpec
from workflow_r1.services.request import Sampling
from workflow_r1.services.settings import SEARCH

WARNING_OP = "WarningOp"

_QUESTION = InputField(name="question")
_SOLUTION = InputField(name="solution")
_REASON_FIRST = "Reason step by step between <reasoning> and </reasoning>. "
_SHORT_ANSWER = (
    "Then write the final answer between <result> and </result>: only the name, number, date or short phrase "
    "that was asked for, without a sentence around it. If you are unsure, give your best guess."
)

AnswerGenerate = OperatorSpec(
    name="AnswerGenerate",
    use_when="a question can be answered in one go: thinks it through and gives an answer",
    inputs=(_QUESTION,),
    system="You answer questions from your own knowledge. " + _REASON_FIRST + _SHORT_ANSWER,
    prompt="<question>\n{question}\n</question>",
    reply_tag="result",
)

Custom = OperatorSpec(
    name="Custom",
    use_when="none of the others fits: carries out your own instruction on a task",
    inputs=(InputField(name="task"), InputField(name="instruction")),
    system=(
        "You carry out an instruction on a task, exactly and without asking back. "
        + _REASON_FIRST
        + "Then write what the instruction asks for, complete and concise, between <result> and </result>."
    ),
    prompt="<task>\n{task}\n</task>\n\n<instruction>\n{instruction}\n</instruction>",
    reply_tag="result",
)

PromptOptimizer = OperatorSpec(
    name="PromptOptimizer",
    use_when="a query is vague or tangled: returns a clearer one that asks the same",
    inputs=(InputField(name="query"),),
    system=(
        "You make queries easier to answer. Keep the meaning and every fact, name every entity in full, remove "
        "ambiguity, and say what kind of answer is wanted. Do not answer the query. "
        "Write the better query, and only it, between <result> and </result>."
    ),
    prompt="<query>\n{query}\n</query>",
    reply_tag="result",
)

Review = OperatorSpec(
    name="Review",
    use_when="a solution may be wrong: checks it and says what, if anything, is wrong with it",
    inputs=(_QUESTION, _SOLUTION),
    system=(
        "You are a strict examiner. Solve the question yourself, then check the solution's facts, logic and "
        "completeness against it. "
        + _REASON_FIRST
        + "Then write your verdict between <result> and </result>: 'Correct' or 'Wrong', followed by the "
        "reason and, where it is wrong, what has to change, in at most three sentences."
    ),
    prompt="<question>\n{question}\n</question>\n\n<solution>\n{solution}\n</solution>",
    reply_tag="result",
)

Revise = OperatorSpec(
    name="Revise",
    use_when="there is feedback on a solution: returns the corrected solution",
    inputs=(_QUESTION, _SOLUTION, InputField(name="feedback")),
    system=(
        "You correct a solution with the help of feedback. Follow the feedback where it is right, and keep what "
        "was right already. " + _REASON_FIRST + _SHORT_ANSWER
    ),
    prompt=(
        "<question>\n{question}\n</question>\n\n<solution>\n{solution}\n</solution>\n\n"
        "<feedback>\n{feedback}\n</feedback>"
    ),
    reply_tag="result",
)

MultiAnswerGenerate = OperatorSpec(
    name="MultiAnswerGenerate",
    use_when="a question is uncertain: gives three independent answers to compare",
    inputs=(_QUESTION,),
    system=AnswerGenerate.system,
    prompt=AnswerGenerate.prompt,
    reply_tag="result",
    sampling=Sampling(temperature=0.8),
    samples=3,
)


class EnsembleSpec(OperatorSpec):
    """Picks one of the candidates in a repeated input: the one whose letter the reply names.

    Self-consistency with the model as the judge of which candidates agree (Wang et al., arXiv
    2203.11171). Where no valid letter can be had, the most frequent candidate is picked.
    """

    async def run(self, inputs: Inputs, ask: Ask) -> str:
        tag = self.reply_tag or "choice"
        candidates = inputs[next(field.name for field in self.inputs if field.at_most > 1)]
        labels = ascii_uppercase[: len(candidates)]

        def letter(reply: str) -> str | None:
            named = re.fullmatch(r"\W*([A-Za-z])\W*", extract_tag(reply, tag))
            return named[1].upper() if named and named[1].upper() in labels else None

        reply = await ask(
            self.messages(inputs),
            sample=0,
            hint=f"Write one letter, {labels[0]} to {labels[-1]}, between <{tag}> and </{tag}>.",
            accept=lambda reply: letter(reply) is not None,
        )
        chosen = letter(reply)
        if chosen is not None:
            return candidates[labels.index(chosen)]
        alike = [" ".join(candidate.lower().split()) for candidate in candidates]
        return candidates[alike.index(Counter(alike).most_common(1)[0][0])]


ScEnsemble = EnsembleSpec(
    name="ScEnsemble",
    use_when="there are several solutions to one query: picks the one that they agree on most",
    inputs=(InputField(name="query"), InputField(name="solution", at_least=2, at_most=len(ascii_uppercase))),
    system=(
        "Several solutions to the same query are listed under letters. Find the answer that most of them agree "
        "on, wording aside; where they are tied, take the one that is best supported. "
        + _REASON_FIRST
        + "Then write the letter of one solution that gives this answer between <choice> and </choice>."
    ),
    prompt="<query>\n{query}\n</query>\n\n<solutions>\n{solution}\n</solutions>",
    reply_tag="choice",
)

Search = OperatorSpec(
    name="Search",
    use_when="a fact has to be looked up: returns the passages that fit a query best",
    inputs=(InputField(name="query"),),
    prompt="{query}",
    endpoint=SEARCH,
)
"""Needs a back end, so it is on offer only where it is named."""

BUILTIN_OPERATORS: tuple[OperatorSpec, ...] = (
    AnswerGenerate,
    Custom,
    PromptOptimizer,
    Review,
    Revise,
    MultiAnswerGenerate,
    ScEnsemble,
)
