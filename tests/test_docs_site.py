"""The documentation site: built without a warning, opened page by page in a browser, searched, no dead link."""

import functools
import http.server
import re
import sys
import threading
import time
from urllib.parse import urldefrag, urljoin

import pytest
from browser import browser
from checkout import ROOT


@pytest.fixture(scope="session")
def site(once, pristine):
    """The site as `mkdocs build --strict` makes it: a warning is an error."""

    def build(target):
        pristine.run(
            sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target), NO_MKDOCS_2_WARNING="1"
        )

    return once("site", build)


def pages(site):
    return sorted(path for path in site.glob("*.html") if path.name != "404.html")


def test_it_is_built_without_a_warning(site):
    assert {"index.html", "tools.html", "theory.html", "api.html", "contributing.html"} <= {p.name for p in pages(site)}
    assert ":::" not in (site / "api.html").read_text()
    assert "include:" not in (site / "contributing.html").read_text()


def test_the_api_page_has_every_public_name(site):
    import l2dyn

    text = (site / "api.html").read_text()
    missing = [name for name in l2dyn.__all__ if name != "theory" and f".{name}" not in text]
    missing += [name for name in l2dyn.theory.__all__ if f"l2dyn.theory.{name}" not in text]
    assert missing == []


def test_no_link_within_the_site_is_dead(site):
    for page in pages(site):
        text = page.read_text()
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", target):
                continue
            path, anchor = urldefrag(target)
            linked = site / path if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor and linked.suffix == ".html":
                assert f'id="{anchor}"' in linked.read_text(), f"{page.name} links to {target}"


@pytest.fixture
def address(site):
    """Where the site is served; its search reads a file, which browsers refuse from a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.mark.slow
def test_every_page_opens_in_a_browser_and_the_search_finds(site, address):
    from selenium.webdriver.common.by import By

    page = browser(offline=False)
    try:
        for path in pages(site):
            page.get(urljoin(address, path.name))
            assert page.find_element(By.TAG_NAME, "h1").text
            shown = page.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
            assert shown, path.name
            complaints = [e["message"] for e in page.get_log("browser") if e["level"] == "SEVERE"]
            assert complaints == [], path.name
            asked = page.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
            assert [name for name in asked if not name.startswith(address)] == []  # nothing from elsewhere
        page.get(address)
        field = page.find_element(By.CSS_SELECTOR, "input[name=query]")
        page.execute_script("document.querySelector('[data-md-toggle=search]').click()")
        field.send_keys("refractory")
        for _ in range(100):
            found = [e.get_attribute("href") for e in page.find_elements(By.CSS_SELECTOR, ".md-search-result__link")]
            if found:
                break
            time.sleep(0.1)
        assert any("api.html" in link or "tools.html" in link for link in found)
    finally:
        page.quit()


def test_the_pages_of_the_navigation_are_those_of_the_folder():
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
    listed = [next(iter(entry.values())) for entry in yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]]
    assert sorted(listed) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))
