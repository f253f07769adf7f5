"""Photograph pages of `workflow-r1 view`, with Chromium: python img/view.py RUN writes img/view_*.png."""

import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.request import urlopen

FOLDER = Path(__file__).parent


def link(address: str, page: str, pattern: str) -> str:
    """The first address on a page that fits a pattern."""
    with urlopen(address + page) as answer:
        found = re.search(f'href="/({pattern}[^"]*)"', answer.read().decode())
    assert found is not None, f"no {pattern} on {page}"
    return unescape(found[1])


def photograph(page: str, name: str, height: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size=1200,{height}"]
    picture = FOLDER / f"view_{name}.png"
    subprocess.run([browser, *flags, f"--screenshot={picture}", page], check=True, stderr=subprocess.DEVNULL)


def main(run: Path) -> None:
    command = [sys.executable, "-m", "workflow_r1.cli", "view", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().split()[0]
            while "step?" not in urlopen(page := f"{address}run?source={run.name}").read().decode():
                pass  # it is being read
            step = link(address, f"run?source={run.name}", r"step\?[^\"]*train")
            photograph(page, "run", 900)
            photograph(address + link(address, step, r"group\?"), "group", 760)
            trajectory = link(address, f"find?source={run.name}&part=val&sort=calls", r"trajectory\?")
            photograph(address + trajectory, "trajectory", 900)
        finally:
            process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
