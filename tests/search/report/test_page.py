from __future__ import annotations

import re
from html.parser import HTMLParser

from search.fronts.front import Front
from search.objectives import load_objectives
from search.records.outcome import DenseRow
from search.report.page import front_html, front_pictures, page, summary_line
from tests.search.cases import outcome

DENSE = DenseRow({"accuracy": 0.96, "flops": 1000.0, "params": 100.0, "seconds": 3.0})
HOSTILE = '<script>alert("x")</script>&'


class Reader(HTMLParser):
    """Collects elements, and refuses those that are not closed in order."""

    VOID = {"meta"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def front(name: str = "s") -> Front:
    rows = [(0.95, 800.0), (0.90, 300.0), (0.85, 600.0)]
    outcomes = [
        outcome(n, metrics={"accuracy": a, "flops": f, "params": 50.0, "seconds": 1.0}) for n, (a, f) in enumerate(rows)
    ]
    return Front(name, DENSE, outcomes, load_objectives("accuracy,flops"))


def test_a_page_is_whole_and_loads_nothing() -> None:
    read = Reader(front_html(front()))
    assert [tag for tag, _ in read.seen][:2] == ["html", "head"]
    assert not [each for _, attributes in read.seen for each in attributes if each in ("src", "href", "srcset")]
    assert "url(" not in front_html(front()) and "@import" not in front_html(front())


def test_names_of_others_are_text() -> None:
    text = front_html(front(HOSTILE))
    assert HOSTILE not in text and "&lt;script&gt;alert(" in text
    assert len(re.findall("<script", text)) == 1
    assert len(re.findall("<script", page(HOSTILE, "<p></p>"))) == 1


def test_every_network_has_a_mark_with_its_numbers() -> None:
    titles = re.findall(r"<title>(.*?)</title>", front_pictures(front()), flags=re.S)
    for number, share in ((0, "80.0 %"), (1, "30.0 %"), (2, "60.0 %")):
        (own,) = [title for title in titles if re.search(rf"trial {number}\b", title)]
        assert share in own


def test_a_front_is_summed_up_in_a_line() -> None:
    shown = front()
    assert summary_line(shown) == f"2 of 3 trials on the front, hypervolume {shown.hypervolume():.4f}"
