"""The documentation: what can be told of it without building the site, which the public CI does strictly."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for room in ("docs", "examples", "verl") for page in ROOT.glob(f"{room}/**/*.md"))]
)
_CODE = re.compile(r"^(```.*?^```|    [^\n]*)$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<path>[^)#\s]*)(#(?P<anchor>[^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """As GitHub and the site make them of headings."""
    headings = re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    lost = []
    for link in _LINK.finditer(_CODE.sub("", page.read_text(encoding="utf-8"))):
        path = link["path"]
        if re.match(r"\w+:", path):
            continue
        target = page.parent / path if path else page
        if not target.exists() or (link["anchor"] and link["anchor"] not in anchors(target)):
            lost.append(link[0])
    assert lost == []


def test_the_site_names_every_page_of_the_documentation():
    named = set(re.findall(r"\S+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")} <= named


def test_the_picture_of_the_readme_is_drawn_by_its_script(tmp_path):
    runpy.run_path(str(ROOT / "img" / "framework.py"))["draw"]().savefig(tmp_path / "framework.png", dpi=20)
    assert (tmp_path / "framework.png").stat().st_size > 1000
