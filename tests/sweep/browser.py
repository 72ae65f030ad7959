"""A page in real headless Chromium, watched: whatever it logs or asks the network for fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is none, but not in CI."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None and not os.environ.get("CI"):
        pytest.skip("no chromium")
    assert path is not None, "CI has chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, **how: Any) -> Iterator[Page]:
    """The page at the URL; how: width, and what a browser context takes."""
    size: Any = {"width": how.pop("width", 1280), "height": 900}
    context = browser.new_context(viewport=size, **how)
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: None if _own(request.url, url) else wrong.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert wrong == [], wrong


def _own(asked: str, url: str) -> bool:
    return asked.startswith("data:") or asked.partition("#")[0] == url
