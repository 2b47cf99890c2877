"""Open every page of the built site in headless Chromium, as a desktop and as a phone, and report what is broken.

Broken is: an answer of 400 or more, an error of a script, an internal link or anchor that leads nowhere, a picture
that does not load, a formula that is not set, a page wider than the screen, a page of llms.txt that is not there. Pages
are found by following links from the first one; a page that no link leads to is broken too. Screenshots are written to
docs/_build/screenshots.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).parents[1] / "docs" / "_build" / "html"
SHOTS = SITE.parent / "screenshots"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
#: Pages of which a picture is kept, to be looked at.
SHOWN = ("index", "gallery", "theory/mechanics", "generated/wlm.tl.fit", "peers", "benchmarks")

#: Pages that Sphinx makes by itself and the theme does not link to.
UNLINKED = {"genindex.html", "py-modindex.html", "search.html"}

STATE = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id),
    pictures: [...document.images].filter(i => i.complete && !i.naturalWidth && i.offsetParent).map(i => i.src),
    formulas: [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length,
    errors: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(m => m.textContent.slice(0, 80)),
    unseen: [...document.querySelectorAll('div.cell')].filter(c =>
        /(wlm|sc)\\.pl\\./.test(c.querySelector('.cell_input')?.textContent || '')
        && !c.querySelector('.cell_output img, .cell_output .animation')
    ).map(c => c.textContent.trim().slice(0, 80)),
    wide: document.documentElement.scrollWidth - window.innerWidth,
})"""


class Quiet(SimpleHTTPRequestHandler):
    """The site on loopback, without a line for each request."""

    def log_message(self, *arguments: object) -> None:
        pass


def visit(page: Page, address: str, found: list[str]) -> dict:
    """Load a page until its formulas are set."""
    answer = page.goto(address, wait_until="load")
    if answer is None or answer.status >= 400:
        found.append(f"{address}: {answer and answer.status}")
        return {"links": [], "ids": []}
    # Lazy pictures and formulas need a moment, and to be scrolled to.
    page.evaluate("() => document.querySelectorAll('img[loading=lazy]').forEach(i => i.loading = 'eager')")
    page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    page.wait_for_function("() => [...document.images].every(i => i.complete)", timeout=20_000)
    return page.evaluate(STATE)


def check(base: str, chromium: str) -> tuple[list[str], int]:
    """All that is broken, and the number of pages."""
    found: list[str] = []
    ids: dict[str, set[str]] = {}
    anchors: list[tuple[str, str]] = []
    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = play.chromium.launch(executable_path=chromium, args=arguments)
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            # The site has to work without the rest of the network.
            page.route("**/*", lambda r: r.continue_() if r.request.url.startswith((base, "data:")) else r.abort())
            page.on("response", lambda r, to=found: to.append(f"{r.url}: {r.status}") if r.status >= 400 else None)
            page.on("pageerror", lambda e, to=found, p=page: to.append(f"{p.url}: {e}"))
            queue, seen = [f"{base}index.html"], {f"{base}index.html"}
            while queue:
                address = queue.pop(0)
                state = visit(page, address, found)
                name = address.removeprefix(base).removesuffix(".html")
                ids[address] = set(state["ids"])
                for kind in ("pictures", "errors", "unseen"):
                    found += [f"{size} {name}: {kind} {text}" for text in state.get(kind, [])]
                if state.get("formulas"):
                    found.append(f"{size} {name}: {state['formulas']} formulas are not set")
                if state.get("wide", 0) > 1:
                    found.append(f"{size} {name}: {state['wide']} pixels wider than the screen")
                if name in SHOWN or name.startswith("tutorials/"):
                    whole = size == "phone" or name.startswith(("tutorials/", "gallery"))
                    page.screenshot(path=SHOTS / f"{size}_{name.replace('/', '_')}.png", full_page=whole)
                for link in state["links"]:
                    target, anchor = urldefrag(urljoin(address, link))
                    if not target.startswith(base):
                        continue
                    if anchor:
                        anchors.append((target, unquote(anchor)))
                    if target not in seen and target.endswith(".html"):
                        seen.add(target)
                        queue.append(target)
                    elif not target.endswith(".html") and target not in seen:
                        seen.add(target)
                        if not (SITE / unquote(target.removeprefix(base))).exists():
                            found.append(f"{name}: {target} does not exist")
            page.close()
        browser.close()
    found += sorted({f"{t}#{a}: no such place" for t, a in anchors if t in ids and a not in ids[t]})
    built = {p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts}
    pages = {f"{base}{p}" for p in built - UNLINKED}
    found += [f"{p}: no link leads here" for p in sorted(pages - set(ids))]
    named = re.findall(r"\]\(([^)]+)\)", (SITE / "llms.txt").read_text())
    found += [f"llms.txt: {target} does not exist" for target in named if not (SITE / target).exists()]
    return found, len(ids)


def main() -> int:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("Chromium is missing: apt-get install chromium, or set CHROMIUM to its path", file=sys.stderr)
        return 2
    if not (SITE / "index.html").exists():
        print("the site is not built: run make docs", file=sys.stderr)
        return 2
    SHOTS.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found, n = check(f"http://127.0.0.1:{server.server_port}/", chromium)
    server.shutdown()
    print("\n".join(dict.fromkeys(found)))
    print(f"{n} pages at {len(SIZES)} widths: {len(dict.fromkeys(found))} faults; screenshots in {SHOTS}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
