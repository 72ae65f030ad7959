"""The report of the service's own sweep, opened in Chromium; the numbers again with numpy from the stored bits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import chromium, opened

from sweep.report.page import Report, gather
from sweep.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SETS = [("linf",), ("l2", "blur"), ("linf", "l2", "l1"), ("fog", "jpeg", "wood", "snow"), ("ppgd", "l1", "gabor")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(swept: Store) -> Report:
    return gather(swept)


@pytest.fixture(scope="module")
def url(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(report.html(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def bits(swept: Store) -> dict[tuple[Any, int, str], Any]:
    """(number, seed, attack) -> verdicts on the test split, straight from the files."""
    rows = swept.results().to_pylist()
    return {
        (row["number"], row["seed"], row["attack"]): np.unpackbits(
            np.frombuffer(row["robust_bits"], np.uint8), count=row["n"]
        )
        > 0
        for row in rows
        if row["split"] == "test"
    }


def survivors(bits: dict[tuple[Any, int, str], Any], number: Any, names: tuple[str, ...]) -> float:
    """The fraction of images that survive all of the attacks, mean over seeds."""
    seeds = sorted({seed for held, seed, _ in bits if held == number})
    return float(np.mean([np.all([bits[number, seed, name] for name in names], axis=0).mean() for seed in seeds]))


def choose(page: Page, names: tuple[str, ...]) -> None:
    page.click("#preset-none")
    for name in names:
        page.check(f"#explorer input[value='{name}']")


def number_of(label: str) -> int | None:
    found = re.search(r"\(trial (\d+)", label)
    return int(found[1]) if found else None


def test_the_union_explorer_is_exact(browser: Browser, url: str, bits: Any) -> None:
    with opened(browser, url) as page:
        labels = page.locator("#model option").all_inner_texts()
        assert {number_of(label) for label in labels} == {None, 0, 1, 2, 3, 4}
        shown = set()
        for label, names in [*zip(labels, itertools.cycle(SETS), strict=False), *((labels[0], one) for one in SETS)]:
            page.select_option("#model", label=label)
            choose(page, names)
            expected = survivors(bits, number_of(label), names)
            assert page.inner_text("#survive") == f"{100 * expected:.1f} %", (label, names)
            assert f"Starting model: {100 * survivors(bits, None, names):.1f} %" in page.inner_text("#told") or (
                label == "starting model"
            )
            shown.add(page.inner_text("#survive"))
        assert len(shown) > 5, "the numbers differ, so that the test can fail"
        page.click("#preset-none")
        assert page.inner_text("#survive") == "–"
        assert page.inner_text("#told") == "Choose at least one attack."


def test_the_table_of_unions_is_exact(browser: Browser, url: str, bits: Any) -> None:
    attacks = {name for *_, name in bits} - {"clean"}
    sets = [{"linf", "l2", "l1"}, attacks - {"linf", "l2", "l1"}, attacks]
    with opened(browser, url) as page:
        for row in page.locator("#union tbody tr").all():
            label, *cells = row.locator("th, td").all_inner_texts()
            found = [survivors(bits, number_of(label), tuple(names)) for names in sets]
            assert cells == [f"{100 * value:.1f}" for value in found]


def test_the_explorer_works_with_the_keyboard_alone(browser: Browser, url: str, bits: Any) -> None:
    with opened(browser, url) as page:

        def tab_to(id: str) -> None:
            for _ in range(200):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.id") == id:
                    return
            pytest.fail(f"no way to {id} by Tab")

        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        tab_to("model")
        page.keyboard.press("ArrowDown")
        label = page.locator("#model option").all_inner_texts()[1]
        tab_to("preset-none")
        page.keyboard.press("Enter")
        tab_to("attack-lp-0")
        page.keyboard.press("Space")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert page.inner_text("#survive") == f"{100 * survivors(bits, number_of(label), ('linf',)):.1f} %"
        status = page.locator("[role=status][aria-live=polite]")
        assert "seed 0" in status.inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (768, "light"), (1920, "dark")])
def test_no_width_needs_sideways_scrolling(browser: Browser, url: str, width: int, scheme: Any) -> None:
    with opened(browser, url, width=width, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#attacks svg").bounding_box()["width"] <= width  # type: ignore[index]


def test_texts_and_lines_stand_out_in_both_themes(browser: Browser, url: str) -> None:
    paper = {}
    for scheme in ("light", "dark"):
        with opened(browser, url, color_scheme=scheme) as page:
            colours = page.evaluate(
                """() => Object.fromEntries(["ink", "muted", "one", "two", "three", "four", "five", "paper", "card"]
                    .map((name) => [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`)]))"""
            )
            for name, behind in itertools.product(colours.keys() - {"paper", "card"}, ("paper", "card")):
                assert contrast(colours[name], colours[behind]) >= 4.5, (scheme, name, behind)
            paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            text = page.evaluate("getComputedStyle(document.querySelector('#attacks svg text')).fill")
            assert text == page.evaluate("getComputedStyle(document.body).color")
    assert paper["light"] != paper["dark"]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour.strip()[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_screen_reader_finds_its_way(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        found = page.evaluate(
            """() => ({
                landmarks: ["header", "nav[aria-label]", "main"].map((one) => document.querySelectorAll(one).length),
                levels: [...document.querySelectorAll("h1, h2, h3")].map((one) => Number(one.tagName[1])),
                unnamed: [...document.querySelectorAll("section, [role=region], figure")].filter((one) =>
                    !one.getAttribute("aria-label") && !one.closest(".worst") &&
                    !document.getElementById(one.getAttribute("aria-labelledby"))).length,
                unlabelled: [...document.querySelectorAll("input, select")].filter((one) => !one.labels.length).length,
                silent: [...document.querySelectorAll("svg")].filter((one) =>
                    (one.getAttribute("aria-label") || "").length < 30).length,
                drawings: document.querySelectorAll("svg[role=img]").length,
                tables: [...document.querySelectorAll("table")].filter((one) => !one.caption ||
                    [...one.querySelectorAll("th")].some((head) => !head.scope)).length,
                ids: [...document.querySelectorAll("[id]")].map((one) => one.id),
                language: document.documentElement.lang,
            })"""
        )
    assert found["landmarks"] == [1, 1, 1]
    assert found["levels"].count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(found["levels"]))
    assert (found["unnamed"], found["unlabelled"], found["silent"], found["tables"]) == (0, 0, 0, 0)
    assert found["drawings"] >= 9
    assert len(found["ids"]) == len(set(found["ids"]))
    assert found["language"] == "en"


def test_on_paper_all_numbers_are_there(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        page.emulate_media(media="print")
        assert not page.is_visible("nav")
        assert not page.is_visible(".choices")
        assert page.is_visible("#union-table")
        assert not page.is_visible("#train-loss-caption")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.is_visible("#train-loss-caption")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert not page.is_visible("#train-loss-caption")
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_the_numbers_are_there(browser: Browser, url: str) -> None:
    with opened(browser, url, java_script_enabled=False) as page:
        assert page.is_visible("#union-table")
        assert not page.is_visible("#explorer")


def test_the_summary_names_the_best_and_what_it_gained(browser: Browser, url: str, swept: Store, bits: Any) -> None:
    best = swept.best()
    assert best is not None
    with opened(browser, url) as page:
        assert page.title().startswith("fixture")
        which, robust, sure = (fact.inner_text() for fact in page.locator(".fact").all())
        assert page.inner_text(".state") == "finished"
        assert "15 COMPLETE" in page.inner_text("header")
        clean = survivors(bits, best["number"], ("clean",))
    assert best["method"] in which
    assert f"Trial {best['number']}" in which
    assert f"Clean {100 * clean:.1f}\u00a0%" in robust
    before, after = (average(bits, number) for number in (None, best["number"]))
    assert f"{100 * after:.1f}\u00a0%" in robust
    assert f"{100 * (after - before):+.1f} points".replace("-", "−") in sure


def average(bits: Any, number: Any) -> float:
    """(avg lp + avg semantic) / 2, of the means over seeds."""
    names = {name for held, _, name in bits if held == number} - {"clean"}
    lp = [survivors(bits, number, (name,)) for name in names & {"linf", "l2", "l1"}]
    return float((np.mean(lp) + np.mean([survivors(bits, number, (n,)) for n in names - {"linf", "l2", "l1"}])) / 2)


def test_the_prior_of_phase_one_is_found(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        assert "From phase I of this sweep" in page.inner_text("#tradeoff")
        assert page.locator("#tradeoff td.n").count() == 9


def test_every_figure_is_there(report: Report) -> None:
    figures = {"attacks", "front", "parallel", "importance", "train-loss", "train-accuracy", "tradeoff"}
    assert {chart.name for chart in report.charts} == figures | {f"probabilities-{k}" for k in range(4)}
