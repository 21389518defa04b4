"""The documentation holds together: links lead somewhere, generated pages are current, decision records have one form."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from moyai.cli.main import COMMANDS
from moyai.cli.reference import PAGES, commands

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAPERS = sorted([REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
RECORDS = sorted((DOCS / "adr").glob("[0-9]*.md"))

_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_RECORD = re.compile(
    r"# (?P<number>\d{4}): \S.*\n\n- Date: \d{4}-\d\d-\d\d\n- Status: (accepted|superseded by \d{4})\n\n"
    r"## Context\n\n.+\n## Decision\n\n.+\n## Consequences\n\n.+",
    re.DOTALL,
)


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links(page: Path) -> list[str]:
    links: list[str] = _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in links if "://" not in link]


@pytest.mark.parametrize("page", PAPERS, ids=_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in _links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{_name(page)} links to {link}, and there is no such file"
        assert not anchor or anchor in _anchors(target), f"{_name(page)} links to {link}, and there is no such heading"


#: A command of the page's own, as against the words of another program.
_COMMAND = re.compile(r"(?:^(?:[$#] )?(?:[A-Z_]+=\S+ )*|\$\()([a-z][\w-]*)(?: (\S+))?", re.MULTILINE)
_BLOCK = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
GUIDES = [page for page in PAPERS if page not in RECORDS]


@pytest.mark.parametrize("page", GUIDES, ids=_name)
def test_commands_work_as_they_stand(page: Path) -> None:
    """Each command of moyai exists, and the OpenStack client is called by the command that every installed moyai has."""
    text = page.read_text(encoding="utf-8")
    lines = [*(_BLOCK.findall(text)), *re.findall(r"`([^`\n]+)`", text)]
    for program, word in (found for line in lines for found in _COMMAND.findall(line)):
        assert program != "openstack" or not word, f"{_name(page)}: openstack {word}"
        known = word in COMMANDS or not re.match("[a-z]", word)
        assert program != "moyai" or known, f"{_name(page)}: moyai {word}"


def test_the_index_names_every_page() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _links(DOCS / "README.md")}
    missing = [_name(page) for page in PAPERS if page.is_relative_to(DOCS) and page not in linked and page not in RECORDS]
    assert missing == ["docs/README.md"]


@pytest.mark.parametrize("record", RECORDS, ids=_name)
def test_a_decision_record_has_number_date_status_context_decision_and_consequences(record: Path) -> None:
    found = _RECORD.fullmatch(record.read_text(encoding="utf-8"))
    assert found, "see docs/adr/README.md for the form"
    assert record.name.startswith(found["number"] + "-")


def test_no_two_decision_records_have_the_same_number() -> None:
    numbers = Counter(record.name[:4] for record in RECORDS)
    assert [number for number, count in numbers.items() if count > 1] == []


def test_the_index_of_decision_records_has_each_with_its_title() -> None:
    index = (DOCS / "adr/README.md").read_text(encoding="utf-8")
    for record in RECORDS:
        title = record.read_text(encoding="utf-8").partition("\n")[0].partition(": ")[2]
        assert f"| [{record.name[:4]}]({record.name}) | {title} | " in index


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == PAGES[name](), (
        "run python -m moyai.cli.reference docs/reference"
    )


def test_the_page_of_the_agents_metrics_has_each_that_its_controllers_describe() -> None:
    code = REPOSITORY / "src/moyai"
    files = [*(code / "agent").rglob("*.py"), code / "runtime/controllers.py"]
    sources = [one.read_text(encoding="utf-8") for one in files]
    described = {name for text in sources for name in re.findall(r'\.describe\(\s*"(\w+)"', text)}
    page = (DOCS / "reference/agent-metrics.md").read_text(encoding="utf-8")
    # the agent does not call the cloud
    described = {name for name in described if not name.startswith("moyai_cloud_")}
    assert described
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == described


def test_exit_codes_are_of_commands_that_exist() -> None:
    assert set(commands.EXIT_CODES) <= set(commands.paths())


def test_no_option_shows_the_marker_of_an_absent_default() -> None:
    assert "UNSET" not in commands.render()
