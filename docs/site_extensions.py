"""What the documentation site needs beyond its configuration: doctests as code blocks, links between included pages."""

import re
from pathlib import Path

from griffe import Extension

DOCTEST = re.compile(r"(?m)^([ ]*)>>> .*(?:\n(?!\s*$).*)*")
INCLUDED = {"](config/README.md)": "](configuration.md)", "](CONTRIBUTING.md)": "](contributing.md)", "](docs/": "]("}


class Doctests(Extension):
    """Show the examples of a docstring as code, wherever in it they stand."""

    def on_object(self, *, obj, **kwargs):
        """Fence them before the docstring is parsed."""
        if obj.docstring and ">>>" in obj.docstring.value:
            fenced = DOCTEST.sub(lambda found: f"```pycon\n{found.group(0)}\n```", obj.docstring.value)
            obj.docstring.value = fenced


def on_page_markdown(markdown, **kwargs):
    """A page "include: FILE" is that file of the repository; its links to other such files lead to the site's pages."""
    included = re.fullmatch(r"include: (\S+)\s*", markdown)
    if included:
        markdown = (Path(__file__).parents[1] / included[1]).read_text(encoding="utf-8")
    for there, here in INCLUDED.items():
        markdown = markdown.replace(there, here)
    return markdown
