"""The tool of the agent, declared as verl has it: a small library of invented films and people."""

from verl.tools.function_tool import function_tool

DIRECTORS = {"Zebora": "Zemar", "Kusima": "Glovis", "Gandora": "Draxis", "Kavima": "Gular"}
BIRTHPLACES = {"Zemar": "Felmholm", "Glovis": "Vabburg", "Draxis": "Dilmburg", "Gular": "Ludburg"}


@function_tool
def lookup(name: str) -> str:
    """Look a film or a person up.

    Args:
        name: the name of the film or the person, and nothing else.
    """
    if name in DIRECTORS:
        return f"{name} is a film directed by {DIRECTORS[name]}."
    if name in BIRTHPLACES:
        return f"{name} is a director born in {BIRTHPLACES[name]}."
    return f"Nothing is known under the name {name}."
