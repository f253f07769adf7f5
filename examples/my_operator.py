"""An operator of one's own: write down what is known, then answer.

The policy is told of it, its input is checked and its request is made from this one declaration. To try it, with the
three OPERATOR_* variables set (or `workflow-r1 world serve`, see docs/evaluation.md):

    export PYTHONPATH=examples
    workflow-r1 operators call RecallAnswer "who directed Zebora ?" --module my_operator

and to train with it, one line of configuration:

    bash train.sh workflow_r1.pool.modules=[my_operator]
"""

from workflow_r1.operators import InputField, OperatorSpec, Sampling

RecallAnswer = OperatorSpec(
    name="RecallAnswer",
    use_when="a question turns on facts: writes down what is known about it, then answers",
    inputs=(InputField(name="question"),),
    system=(
        "Write down, between <facts> and </facts>, what you know for certain about everything that the question names. "
        "Then write the answer that follows from it, and only that, between <result> and </result>."
    ),
    prompt="{question}",
    reply_tag="result",
    sampling=Sampling(temperature=0.2, max_tokens=512),
)
