"""What mkdocs does not do by itself: pages from all over the repository, and mathematics without a script.

The site shows the same files that a reader of the repository sees. They keep their relative links, which lead from
where a file lies in the repository; on the site, `docs/` is the root.
"""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "examples/README.md": "examples/index.md",
    "verl/README.md": "verl/index.md",
    **{name: name for name in ("AGENTS.md", "CONTRIBUTING.md", "CHANGELOG.md")},
}
"""Pages that do not lie in `docs/`, and their names on the site."""

_LINK = re.compile(r"\]\((?!\w+:|#)(?P<path>[^)#\s]+)")
_MATHS = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside `docs/`."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    for path in [*ROOT.glob("img/*.png"), *ROOT.glob("examples/**/*")]:
        if path.suffix in (".png", ".py", ".sh", ".yaml"):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let relative links lead from where the page is on the site to where the file is."""
    here = page.file.src_uri
    in_repository = next((path for path, name in PAGES.items() if name == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link["path"]))
        there = PAGES.get(path, path.removeprefix("docs/"))
        return f"]({posixpath.relpath(there, posixpath.dirname(here) or '.')}"

    return _LINK.sub(moved, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, which browsers lay out themselves."""
    return _MATHS.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula["tag"] == "div" else "inline"
    return convert(html.unescape(formula["latex"]), display=display)
