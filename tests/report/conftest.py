"""Pages read as a browser reads them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest


class Links(HTMLParser):
    """What a page would load or point at, its tags in order, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.html = html
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data

    def check_whole(self) -> None:
        """Nothing outside is needed, and everything that is pointed at within is there once."""
        assert not re.search(r"https?:|//\w|@import|<script", self.html)
        assert all(link.startswith("#") for link in self.links)
        assert {link[1:] for link in self.links} <= set(self.ids)
        assert {each for each in re.findall(r"url\(#([^)]+)\)", self.html)} <= set(self.ids)
        assert len(set(self.ids)) == len(self.ids)


@pytest.fixture
def read() -> type[Links]:
    """``read(html)``."""
    return Links
