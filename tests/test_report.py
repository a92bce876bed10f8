"""The report page in a real browser: without a network, every figure, the claims' table complete, a silent console."""

import base64
import re
import shutil
import sys
import time

import pytest
from browser import browser
from checkout import rows_of

pytestmark = pytest.mark.slow  # they need the whole smoke scale


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    """The report of the finished smoke scale, made as `make report` does."""
    checkout = finished.copy_to(tmp_path_factory.mktemp("report") / "checkout")
    made = checkout.run(
        sys.executable, "-m", "l2dyn", "made", "--scale", "smoke", PYTHONPATH=str(checkout.path / "src")
    )
    checkout.snakemake(*made.stdout.split(), "--report", "results/smoke/report.html")
    return checkout, checkout.out / "report.html"


@pytest.fixture
def page(report):
    opened = browser()
    opened.get(report[1].as_uri())
    yield opened
    opened.quit()


def click(page, text: str) -> None:
    """Click what shows exactly this text, once it is there."""
    from selenium.webdriver.common.by import By

    wanted = f"//*[self::a or self::button or self::span or self::li or self::div][normalize-space(text())='{text}']"
    for _ in range(50):
        found = [e for e in page.find_elements(By.XPATH, wanted) if e.is_displayed()]
        if found:
            page.execute_script("arguments[0].click()", found[0])
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing shows {text!r}: {page.find_element(By.TAG_NAME, 'body').text[:2000]}")


def text_of(page) -> str:
    from selenium.webdriver.common.by import By

    return page.find_element(By.TAG_NAME, "body").text


def test_the_page_holds_everything_itself(report):
    """One file: every figure as it was drawn, claims and summaries; nothing is loaded from elsewhere."""
    checkout, path = report
    html = path.read_text()
    for picture in sorted(checkout.out.glob("fig*.png")):
        assert base64.b64encode(picture.read_bytes()).decode()[:400] in html, picture.name
    assert not re.search(r'<(?:script|img|link)[^>]+(?:src|href)="https?://', html)
    for name in ("claims.csv", "claim_parts.csv", "claims.html", "fig2ab/summary.csv", "fig2ab/summary.html"):
        assert base64.b64encode((checkout.out / name).read_bytes()).decode()[:400] in html, name


def test_it_opens_without_a_network_and_says_what_it_is(page):
    time.sleep(2)
    assert "training dynamics of deep networks" in text_of(page)
    assert "L2 coefficient" in text_of(page)
    severe = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_categories_lead_to_figures_and_claims(page, report):
    checkout, _ = report
    click(page, "Figures")
    time.sleep(1)
    shown = text_of(page)
    for picture in checkout.out.glob("fig*.png"):
        assert picture.stem in shown
    page.refresh()
    click(page, "Claims")
    time.sleep(1)
    assert "parts of the claims" in text_of(page)
    view(page, "claims and parts")
    parts = rows_of(checkout.out / "claim_parts.csv")
    assert shown_rows(page) == 22 + len(parts)
    search(page, "C7 fraction")
    asked = [row for row in (*rows_of(checkout.out / "claims.csv"), *parts) if is_found("c7 fraction", row)]
    assert 0 < shown_rows(page) == len(asked) < 22
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def view(page, label: str) -> None:
    """Open the result of this label in the page, and go into its frame."""
    from selenium.webdriver.common.by import By

    page.find_element(By.XPATH, f"//tr[contains(., '{label}')]//a").click()
    time.sleep(2)
    page.switch_to.frame(page.find_element(By.TAG_NAME, "iframe"))


def search(page, words: str) -> None:
    from selenium.webdriver.common.by import By

    page.find_element(By.ID, "search").send_keys(words)


def shown_rows(page) -> int:
    """Of the table in the frame."""
    return page.execute_script("return [...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).length")


def is_found(words: str, row: dict) -> bool:
    return all(word in "".join(row.values()).lower() for word in words.split())


def test_after_one_figure_a_report_can_be_made(finished, tmp_path):
    """Whatever has been made so far: here a single figure and what it is made from."""
    checkout = finished.copy_to(tmp_path / "one")
    for path in [*checkout.out.glob("fig*"), *checkout.out.glob("claim*"), *checkout.out.glob("results.md")]:
        if path.stem not in ("fig3", "fig3-plain", "fig3-norm", "fig3-plain-budget", "fig3-norm-budget"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    made = checkout.run(
        sys.executable, "-m", "l2dyn", "made", "--scale", "smoke", PYTHONPATH=str(checkout.path / "src")
    )
    assert "fig3.png" in made.stdout
    assert "fig1.png" not in made.stdout
    checkout.snakemake(*made.stdout.split(), "--report", "report.html")
    assert (checkout.path / "report.html").stat().st_size > 1_000_000
