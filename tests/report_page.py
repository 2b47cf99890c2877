"""A report, taken apart, for tests."""

import base64
import io
from html.parser import HTMLParser

import pandas as pd


class Page(HTMLParser):
    """What a report holds: ``text`` by section, ``tables`` by name, tags with their attributes."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.source, self.tags, self.text, self.tables, self.headings = source, [], {}, {}, []
        self._section, self._inside = "", []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in ("meta", "link", "img", "input", "path"):
            self._inside.append(tag)
        if tag == "section":
            self._section = attrs["id"]
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag == "a" and "download" in attrs:
            data = base64.b64decode(attrs["href"].partition("base64,")[2]).decode()
            self.tables[attrs["download"].removesuffix(".csv")] = pd.read_csv(io.StringIO(data))

    def handle_endtag(self, tag):
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside):
            self.text[self._section] = f"{self.text.get(self._section, '')} {data}"

    def said(self, section):
        """The text of a section, spaces squeezed."""
        return " ".join(self.text[section].split())

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]
