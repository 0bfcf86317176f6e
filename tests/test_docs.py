"""Links between the files of the repository lead somewhere: pages, headings, files that a text names, chapters."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from npflow import cli

ROOT = Path(__file__).parent.parent
BUILT = ("_build", "jupyter_execute", "book/", "gallery/", "reference/", "generated/")
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in (ROOT / "docs").rglob("*.md") if not any(part in page.as_posix() for part in BUILT)),
]
SCRIPTS = [*(ROOT / "demos").rglob("*.py"), *(ROOT / "npflow" / "exercises" / "pages").glob("*.py")]
CHAPTERS = {int(chapter.stem.split("_")[0]) for chapter in (ROOT / "demos" / "book").glob("*.py")}


def name_of(path):
    return str(path.relative_to(ROOT))


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() or path.startswith("book/"), (
            f"{target} in {name_of(page)}"
        )  # the book's pages are built
        if anchor:
            assert anchor in anchors(file), f"{target} in {name_of(page)}"


@pytest.mark.parametrize("page", [*PAGES, *SCRIPTS], ids=name_of)
def test_a_file_that_a_text_names_is_there(page):
    named = re.findall(
        r"\b(?:demos|docs|npflow|tests|benchmarks)/[\w/]+\.(?:py|md|png|html)\b", page.read_text()
    )
    built = "docs/_build/"
    assert not [path for path in named if not path.startswith(built) and not (ROOT / path).exists()]


@pytest.mark.parametrize("chapter", sorted((ROOT / "demos" / "book").glob("*.py")), ids=name_of)
def test_a_chapter_that_another_names_is_there(chapter):
    text = chapter.read_text()
    named = {int(number) for number in re.findall(r"[Cc]hapters? (\d+)", text)}
    assert named <= CHAPTERS
    names = {page.stem for page in (ROOT / "npflow" / "exercises" / "pages").glob("*.py")}
    assert set(re.findall(r"`npflow exercise (\w+)`", text)) <= names


def test_the_page_of_the_command_line_asks_every_command_for_help(monkeypatch):
    asked = []
    run = lambda words, **_: asked.append(words[3:]) or SimpleNamespace(stdout="")
    monkeypatch.setattr(subprocess, "run", run)
    page = (ROOT / "docs/command_line.md").read_text()
    exec(re.search(r"```\{code-cell\}\n.*?\n\n(.*?)```", page, re.DOTALL)[1], {})
    names = [command.__name__.rpartition(".")[2] for command in cli.COMMANDS]
    assert asked == [["--help"], *([name, "--help"] for name in names)]
