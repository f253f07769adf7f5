"""The pages in a real browser, over a real server: clicked through, with keys, on a phone, and with hostile text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import Tab, open_tab
from support.recorded_run import add_step, call, make_run, trajectory, turn
from support.viewing import viewing
from support.waiting import wait_until

from workflow_r1.trajectory import write_jsonl

pytestmark = pytest.mark.slow

HOSTILE = [
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=\"document.title='owned'\">' autofocus onfocus='document.title=1'",
    "```mermaid\ngraph TD; A-->B; click A href \"javascript:document.title='owned'\"\n```",
    "\x1b]0;owned\x07\u202eowned\u2066 שלום مرحبا",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("view") / "run")
    add_step(folder, 3, part="val")
    bad = [
        trajectory(
            text, True, turn(text, calls=[call(operator=text, output=text)]), turn(answer=text + "a" * 1_000_000)
        )
        for text in HOSTILE
    ]
    write_jsonl(folder / "trajectories/val/9.jsonl", bad)
    return folder


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with viewing(run, run.parent / "cache") as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_tab(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


def test_from_the_run_to_a_trajectory_by_clicks_and_by_keys(browser: Tab, address: str):
    browser.faults.clear()
    browser.open(address)
    wait_until(lambda: "36" in browser.text())
    for heading in ("run", "run: val, step 9"):
        browser.press("j")
        browser.press("Enter")
        browser.loaded()
        assert browser.run("document.querySelector('h1').innerText") == heading
    browser.open(f"{address}step?source=run&part=train&step=1")
    browser.follow("a[href^='/group']")
    assert browser.run("document.querySelectorAll('article').length") == 4
    browser.follow("article a")
    browser.follow(".graph a[href='#turn-2']")
    assert browser.run("document.querySelector(':target h3').innerText") == "Turn 2"
    browser.press("j")
    browser.loaded()
    assert "line 2" in browser.text()
    assert browser.faults == []


def test_a_filter_by_keyboard_leaves_a_short_link(browser: Tab, address: str):
    browser.open(f"{address}find?source=run")
    browser.press("/")
    for letter in "nobody":
        browser.press(letter)
    browser.press("Enter")
    browser.loaded()
    assert browser.run("location.search") == "?text=nobody&source=run"
    assert browser.text().count("who wrote Brastune ?") > 0
    browser.press("j")
    assert browser.run("document.activeElement.getAttribute('href')").startswith("/trajectory")


def test_a_new_step_appears_by_itself(browser: Tab, address: str, run: Path):
    browser.open(f"{address}run?source=run")
    browser.run("window.same = true")
    add_step(run, 77)
    wait_until(lambda: "step 77" in browser.text().replace("\n", " "))
    assert browser.run("window.same")


@pytest.mark.parametrize("line", range(1, len(HOSTILE) + 1))
def test_hostile_text_does_nothing(browser: Tab, address: str, line: int):
    browser.faults.clear()
    for page in (
        f"trajectory?source=run&part=val&step=9&line={line}",
        "find?step=9",
        "step?source=run&part=val&step=9",
    ):
        browser.open(address + page)
        assert "owned" not in browser.run("document.title").split(" · ")[0]
        assert (
            browser.run("document.querySelectorAll('main img, main script, main svg[onload], main iframe').length") == 0
        )
    assert browser.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_in_both_schemes(browser: Tab, address: str, scheme: str):
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        for page in ("", "run?source=run", "find", "trajectory?source=run&part=train&step=1&line=1"):
            browser.open(address + page)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), page
            assert browser.run(CONTRAST) >= 4.5, page
    finally:
        browser.ask("Emulation.clearDeviceMetricsOverride")
        browser.ask("Emulation.setEmulatedMedia", features=[])


def test_it_asks_no_other_host(browser: Tab, address: str):
    browser.requested.clear()
    browser.open(f"{address}run?source=run")
    assert {url.startswith(address) for url in browser.requested} == {True}


CONTRAST = """(() => {  // the least contrast, by WCAG's formula, of a text of the page and the ground that it stands on
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((numbers(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const shown = [...document.querySelectorAll("main *")]
    .filter((one) => one.childElementCount === 0 && one.innerText?.trim());
  return Math.min(...shown.map((one) => {
    const pair = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  }));
})()"""
