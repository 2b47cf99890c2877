"""The report in headless Chromium, as a desktop and as a phone, by day and by night, on paper and without scripts."""

import numpy as np
import pandas as pd
import pytest
from conftest import chromium

import wlm

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

#: Contrast of all text with what is behind it, by WCAG: 4.5 is asked for.
CONTRAST = """() => {
  const parts = (color) => {
    const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const light = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parts(getComputedStyle(element).backgroundColor);
      if (color[3] > 0) return color;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(element);
    if (!own || !element.offsetParent || ["SCRIPT", "STYLE", "OPTION"].includes(element.tagName)) continue;
    const [a, b] = [light(parts(style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) {
      found.push(`${element.tagName} ${element.className} ${ratio.toFixed(2)} ${element.textContent.slice(0, 40)}`);
    }
  }
  return found;
}"""

STATE = """() => ({
  wide: document.documentElement.scrollWidth - window.innerWidth,
  broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.alt),
  cut: [...document.querySelectorAll("main p, main li, dd, h1, h2, figcaption")]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.textContent.slice(0, 60)),
})"""


@pytest.fixture(scope="module")
def page_file(_bifurcation, quick, tmp_path_factory):
    a = _bifurcation.copy()
    a.obsm["X_umap"] = a.obsm["X_pca"][:, :2].copy()
    a.obs["a_very_long_name_of_a_column_of_labels_as_pipelines_write_them_cell_type"] = pd.Categorical(
        np.where(a.obs["fate"] == "A", "a-label-without-any-space-" * 3, "B")
    )
    wlm.tl.fit(a, "day", holdout=2, **{**quick, "backtest": True})
    return wlm.report(a, tmp_path_factory.mktemp("browser") / "report.html", show_progress=False)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = play.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, page_file):
    """Open the report; what goes wrong is collected in ``faults``."""
    opened = []

    def open_page(size="desktop", **options):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        opened.append(context)
        page = context.new_page()
        page.faults = []
        page.on("console", lambda m: page.faults.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.faults.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else page.faults.append(r.url))
        page.goto(page_file.as_uri(), wait_until="load")
        return page

    yield open_page
    for context in opened:
        context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_broken_or_too_wide_or_pale(visit, size, scheme):
    page = visit(size, color_scheme=scheme)
    state = page.evaluate(STATE)
    assert state == {"wide": 0, "broken": [], "cut": []}
    assert page.evaluate(CONTRAST) == []
    assert page.faults == []
    assert page.evaluate("document.images.length") > 6


def test_the_film_moves_by_keys_and_by_its_button(visit):
    page = visit()
    slider, output = page.locator(".film input"), page.locator(".film output")
    assert page.locator(".controls").is_visible() and output.text_content() == "day 4"
    cells = page.locator(".moving").get_attribute("d")
    near = page.locator(".seen.near").get_attribute("data-time")
    slider.focus()
    page.keyboard.press("Home")
    assert output.text_content() == "day 0" and slider.get_attribute("aria-valuetext") == "day 0"
    assert page.locator(".moving").get_attribute("d") != cells
    assert (near, page.locator(".seen.near").get_attribute("data-time")) == ("4", "0")
    page.keyboard.press("ArrowRight")
    assert output.text_content() == "day 0.1"
    button = page.locator(".play")
    button.click()
    for _ in range(100):  # the page's policy lets nothing be evaluated in it, by which Playwright would wait
        page.wait_for_timeout(50)
        if int(slider.input_value()) > 3:
            break
    assert int(slider.input_value()) > 3
    assert button.text_content() == "Pause"
    button.click()
    assert button.text_content() == "Play" and button.get_attribute("aria-pressed") == "false"
    assert page.faults == []


def test_everything_is_reached_by_the_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        tag = page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className")
        if tag.startswith("BODY"):
            break
        reached.add(tag.strip())
    assert {"BUTTON play", "INPUT", "A", "DIV scroll"} <= reached and any(t.startswith("DIV sheet") for t in reached)


def test_tables_are_downloaded(visit, tmp_path):
    page = visit()
    with page.expect_download() as download:
        page.locator("a[download='training_times.csv']").click()
    download.value.save_as(tmp_path / "t.csv")
    assert pd.read_csv(tmp_path / "t.csv").columns.tolist()[:2] == ["day", "w1"]
    assert page.faults == []


def test_it_is_read_without_scripts_and_printed(visit, tmp_path):
    page = visit("phone", java_script_enabled=False)
    assert not page.locator(".controls").is_visible() and page.locator(".film svg").is_visible()
    assert page.locator("nav li a").first.is_visible()
    page = visit()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible() and page.evaluate(CONTRAST) == []
    printed = page.pdf(format="A4")
    assert printed[:4] == b"%PDF" and printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 4
