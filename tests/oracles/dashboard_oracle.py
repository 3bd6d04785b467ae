#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The dashboard of troika-serve in a real browser, without a window.

    dashboard_oracle.py PATH/TO/troika-serve FOLDER_OF_THE_BUNDLED_MODEL

In both colour schemes, as wide as a phone and as a desk: the page shows what the server does and follows it, writes no error to the
console, asks no other host, has no horizontal scroll, and names everything for those who do not see it. Where a token is needed it
asks for it. With DASHBOARD_PICTURE=FILE.png it also takes a picture. Exits with 77 (skipped) where there is no playwright or chromium.
"""

import json
import os
import shutil
import sys
import urllib.parse

try:
    from playwright.sync_api import sync_playwright
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

from served import Server, eventually

failures = []


def check(what, condition, shown=""):
    if not condition:
        failures.append(what)
        print(f"FAILED: {what} {shown}", flush=True)


def generate(server, headers=None):
    body = json.dumps({"model": "model", "prompt": "12 + 345 =", "stream": False, "options": {"temperature": 0}})
    status, text = server.ask("POST", "/api/generate", body, headers)
    check("generate", status == 200, text)


class Page:
    """A page that remembers what it complained about and whom it asked."""

    def __init__(self, browser, server, **look):
        self.context = browser.new_context(**look)
        self.page = self.context.new_page()
        self.errors, self.asked = [], []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(server.url + "/dashboard")

    def text(self, selector):
        return self.page.inner_text(selector)

    def wait(self, expression):
        # The page's policy forbids what wait_for_function does.
        if not eventually(lambda: self.page.evaluate(expression), 60):
            raise RuntimeError(f"the page never came to: {expression}; its status is {self.text('#status')!r}")

    def close(self):
        self.context.close()


def looks(browser, server):
    backgrounds = {}
    for scheme in ("light", "dark"):
        for width in (360, 1280):
            name = f"{scheme}, {width} pixels"
            page = Page(browser, server, color_scheme=scheme, viewport={"width": width, "height": 800})
            page.wait("document.querySelectorAll('#requests tr').length >= 1")
            check(f"{name}: errors", not page.errors, page.errors)
            hosts = {urllib.parse.urlsplit(url).netloc for url in page.asked if not url.startswith("data:")}
            check(f"{name}: hosts", hosts == {urllib.parse.urlsplit(server.url).netloc}, hosts)
            wide = page.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            check(f"{name}: horizontal scroll", wide <= 0, wide)
            backgrounds[scheme] = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
            unnamed = page.page.evaluate("""[...document.querySelectorAll("svg, [role=img], [role=region]")]
                .filter(e => !e.getAttribute("aria-label")).length""")
            check(f"{name}: pictures without a name", unnamed == 0, unnamed)
            check(f"{name}: one heading", page.page.locator("h1").count() == 1 and page.page.locator("h2").count() >= 2)
            contrast = page.page.evaluate("""() => {
                const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number)
                    .map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
                const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
                    if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255, 255, 255)"; };
                return Math.min(...[...document.querySelectorAll("h1, h2, dd, dt, small, th, td, span, footer")].filter(e => e.innerText).map(e => {
                    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
                    return (a + 0.05) / (b + 0.05); }));
            }""")
            check(f"{name}: contrast", contrast >= 4.5, contrast)
            if scheme == "light" and width == 1280 and os.environ.get("DASHBOARD_PICTURE"):
                page.page.screenshot(path=os.environ["DASHBOARD_PICTURE"])
            page.close()
    check("light and dark differ", backgrounds["light"] != backgrounds["dark"], backgrounds)


def follows(browser, server):
    page = Page(browser, server)
    page.wait("document.getElementById('status').textContent === 'no model is loaded'")
    check("no request yet", page.text("#first-tail") == "no request yet")
    generate(server)
    page.wait("document.getElementById('status').textContent === 'serving'")
    page.wait("document.querySelectorAll('#requests tr').length === 1")
    check("a model with its devices", "model:latest" in page.text("#models") and "host:0" in page.text("#models") and "host:1" in page.text("#models"),
          page.text("#models"))
    check("its first token", page.text("#first").endswith("s") and page.text("#each").endswith("s"), page.text("#first"))
    before = page.text("#total")
    generate(server)
    page.wait("document.querySelectorAll('#requests tr').length === 2")
    page.wait(f"document.getElementById('total').textContent !== {json.dumps(before)}")
    check("errors", not page.errors, page.errors)
    page.close()


def with_token(browser, program, model):
    server = Server(program, "--models", model, "--devices", 2, token="a secret")
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/dashboard", 200), ("/dashboard/state", 401), ("/metrics", 401), ("/api/tags", 401)):
        got = server.ask("GET", path)[0]
        check(f"{path} without a token", got == status, got)
    generate(server, {"Authorization": "Bearer a secret"})
    page = Page(browser, server)
    page.wait("!document.getElementById('login').hidden")
    check("nothing is shown without a token", not page.page.is_visible("#content"))
    for token, text in (("wrong", "the server does not take this token"), ("a secret", "serving")):
        page.page.fill("#token", token)
        page.page.press("#token", "Enter")
        page.wait(f"document.getElementById('status').textContent === {json.dumps(text)}")
    page.wait("document.querySelectorAll('#requests tr').length === 1")
    check("the form goes", not page.page.is_visible("#login"))
    page.page.reload()
    page.wait("document.getElementById('status').textContent === 'serving'")
    check("the address has no token", "secret" not in page.page.url and not any("secret" in url for url in page.asked))
    page.close()
    check("ends well", server.stop() == 0)


def main():
    program, model = sys.argv[1:3]
    browser_program = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_program is None:
        print("SKIPPED: chromium is not installed")
        return 77
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program, args=["--no-sandbox"])
        server = Server(program, "--models", model, "--devices", 2)
        follows(browser, server)
        looks(browser, server)
        check("ends well", server.stop() == 0)
        with_token(browser, program, model)
        browser.close()
    print(f"{len(failures)} failures" if failures else "all as it should be")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
