"""The verb report: what it writes, what it says of what is missing, names that mean harm, and the live page."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import chromium, opened
from PIL import Image
from shells import FAMILY, Shell, verdict
from sweeps import planned

from attacks.errors import InputError
from sweep.report import standing, svg
from sweep.report.live import Server
from sweep.report.page import gather
from sweep.storage import Storage
from sweep.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "</script><img src=x onerror=alert(1)>$\\frac{x}$ \x00{{ 1 }}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def tell(store: Store, number: int, method: str, **params: Any) -> None:
    """A finished trial, judged on both splits."""
    key = f"t{number}"
    for split in ("val", "test"):
        store.write_results(key, f"{split}-live", [verdict(number, method, split, a) | {"seed": 0} for a in FAMILY])
    store.write_plan(number, planned(key, method, **params))
    about = {"number": number, "key": key, "state": "COMPLETE", "value": 0.9, "method": method, "params": params}
    store.commit_trial(about | {"seed": 0})


def png(pixels: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_it_is_written_into_the_folder_of_the_sweep(sweep: Shell, finished: Store) -> None:
    answer = sweep("report", "s")
    assert answer.code == 0, answer
    path = sweep.results / "s" / "report" / "index.html"
    assert answer.out == f"{path}\n"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_same_store_gives_the_same_page(finished: Store) -> None:
    assert gather(finished).html() == gather(finished).html()


def test_a_section_without_data_says_so(finished: Store) -> None:
    html = gather(finished).html()
    assert "No epoch of a trial has ended yet." in html
    assert "No probability is stored" in html
    assert "No matrix is stored with this sweep." in html
    assert "No image is stored for this sweep" in html
    assert "No importances yet: expected at least 4 finished trials" in html


def test_a_sweep_that_has_only_begun_has_a_page(sweep: Shell, finished: Store) -> None:
    for name in ("results", "trials"):
        shutil.rmtree(sweep.results / "s" / "parquet" / name)
    html = gather(finished).html()
    assert "No configuration has finished all of its runs." in html
    assert "2 PLANNED" in html
    assert "No verdict that can be joined is stored yet." in html
    assert "no results on split" in html


def test_no_name_does_harm(browser: Browser, finished: Store, tmp_path: Path) -> None:
    tell(finished, 2, HOSTILE, **{"sampler.<b>": HOSTILE})
    finished.write_epochs("t2", [{"number": 2, "epoch": 1, "train_loss": 1.0, "probabilities": {HOSTILE: 1.0}}])
    path = tmp_path / "index.html"
    path.write_text(gather(finished).html(), encoding="utf-8")
    with opened(browser, path.as_uri()) as page:
        assert page.locator("img, .fact b").count() == 0
        assert "<img src=x onerror=alert(1)>" in page.inner_text(".fact >> nth=0")
        assert "<img src=x" in page.locator("#learning svg").text_content()  # type: ignore[operator]
        assert page.locator("#model option").first.inner_text().startswith("</script><img")
        assert page.inner_text("#survive") != "–"


def test_the_policy_lets_no_other_script_run(browser: Browser, finished: Store, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(gather(finished).html().replace("</main>", "<script>window.harmed = 1</script></main>"))
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(browser, path.as_uri()) as page:
        assert page.evaluate("window.harmed") is None


def test_the_worst_images_and_what_changed(finished: Store) -> None:
    tell(finished, 2, "sat")
    before = np.full((8, 8, 3), 100, np.uint8)
    after = before.copy()
    after[0, 0] = (151, 100, 49)
    about = {"number": 2, "method": "sat", "seed": 0, "weights": "live", "epoch": 1, "split": "test", "image": 7}
    about |= {"label": 3, "predicted": 8, "loss": 4.25, "png": png(before), "adversarial_png": png(after)}
    damaged = about | {"attack": "l1", "rank": 1, "png": b"\x89PNG no"}
    finished.write_examples("t2", "test-live", [about | {"attack": "blur", "rank": 1}, damaged])
    html = gather(finished).html()
    section = html[html.index('<section id="worst"') : html.index('<section id="environment"')]
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["blur"]
    assert "class 3 → 8, loss 4.25, change ≤ 0.20" in section
    pictures = [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', section)]
    clean, attacked, change = (np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures)
    assert (clean == before).all()
    assert (attacked == after).all()
    assert change[0, 0].tolist() == [255, 128, 0]
    assert (change[1:] == 128).all()


def test_the_matrix_asked_for_is_drawn(sweep: Shell, finished: Store) -> None:
    matrix = Store(Storage(str(sweep.results)), "m")
    matrix.create({"kind": "tradeoff", "space": "tradeoff", "trials": 2})
    cells = {("linf", "linf"): 0.5, ("linf", "l1"): -0.125, ("l1", "linf"): 0.25, ("l1", "l1"): 0.0}
    matrix.write_tradeoff([{"trained_on": a, "attack": b, "effect": effect} for (a, b), effect in cells.items()])
    html = gather(finished, "m").html()
    section = html[html.index('<section id="tradeoff"') : html.index('<section id="worst"')]
    assert re.findall(r'<td class="n">(.*?)</td>', section) == ["+50.0", "−12.5", "+25.0", "+0.0"]
    assert "the strongest loss is −12.5 points against l1 by training on linf" in section
    assert ">−12.5</text>" in section
    assert sweep.refused("report", "s", "--tradeoff", "n") == "unknown sweep 'n': known: m, s"
    assert sweep.refused("report", "s", "--tradeoff", "s") == "unknown trade-off matrix 's': known: m"


def test_of_many_models_the_best_are_shown(finished: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "MOST_MODELS", 1)
    report = gather(finished)
    assert [model.number for model in report.standing.table.models] == [None, 0]
    assert report.joined is not None
    assert len(report.joined.models) == 2
    assert "The best 2 of 3 models by average" in report.html()


def test_every_figure_is_written_as_a_file(sweep: Shell, finished: Store, tmp_path: Path) -> None:
    out, folder = tmp_path / "page.html", tmp_path / "figures"
    answer = sweep("report", "s", "--out", str(out), "--figures", str(folder), "--figure-format", "pdf")
    assert answer.code == 0, answer
    first, *made = map(Path, answer.out.splitlines())
    assert first == out
    assert set(made) == set(folder.iterdir()) == {folder / f"{name}.pdf" for name in ("attacks", "front", "parallel")}
    assert all(path.read_bytes().startswith(b"%PDF-1.4") for path in made)


def test_a_figure_for_a_paper_keeps_its_texts(finished: Store, tmp_path: Path) -> None:
    made = {path.stem: path for path in gather(finished).save_figures(tmp_path, "svg")}
    texts = [element.text for element in ElementTree.parse(made["attacks"]).iter("{http://www.w3.org/2000/svg}text")]
    assert {"clean", "linf", "blur", "average", "starting model"} <= set(texts)


def test_wrong_use_is_one_line(sweep: Shell, finished: Store) -> None:
    assert sweep.refused("report", "t").startswith("unknown sweep 't'")
    assert sweep.refused("report", "s", "--figure-format", "png") == "unknown figure format 'png': known: pdf, svg"
    assert sweep.refused("report", "s", "--live", "--out", "x").startswith("expected --live alone")
    assert "x/y" in sweep.refused("report", "s", "--out", "x/y/z.html")
    assert sweep.refused("report", "s", "--port", "70000")


@pytest.fixture
def served(finished: Store) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`report s --live`, and its port."""
    finished.write_plan(2, planned("t2"))
    command = [sys.executable, "-m", "sweep", "report", "s", "--live", "--storage", finished.storage.uri]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())
    assert found
    yield process, int(found[1])
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_the_live_page_follows_the_store(browser: Browser, finished: Store, served: Any) -> None:
    process, port = served
    with opened(browser, f"http://127.0.0.1:{port}/") as page:
        assert page.inner_text(".state") == "not finished"
        page.click("#preset-none")
        page.check("#explorer input[value=blur]")
        page.select_option("#model", index=1)
        label = page.locator("#model option").nth(1).inner_text()
        page.click("#specification-data summary")
        page.evaluate("scrollTo({ top: 500, behavior: 'instant' })")
        tell(finished, 2, "new")
        page.wait_for_selector("#models th:has-text('new (trial 2)')", timeout=120_000)
        assert page.inner_text(".state") == "finished"
        assert page.locator("#explorer input:checked").count() == 1
        assert page.is_checked("#explorer input[value=blur]")
        assert page.locator("#model option:checked").inner_text() == label
        assert page.evaluate("scrollY") == 500
        assert page.get_attribute("#specification-data", "open") == ""
        assert page.locator("#live").count() == 0
        assert json.loads(page.inner_text("#data"))["refresh"] is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_the_server_gives_that_page_to_this_machine_and_nothing_else(finished: Store) -> None:
    with Server(finished, None, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def ask(path: str = "/", method: str = "GET", **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer

        first = ask()
        assert first.status == 200
        assert ask(**{"If-None-Match": first.headers["ETag"]}).status == 304
        assert ask(method="HEAD").headers["Content-Length"] == first.headers["Content-Length"]
        assert ask("/sweep.json").status == ask("/../../etc/passwd").status == ask("//x").status == 404
        assert ask(method="POST").status == 501
        assert ask(Host="evil.example").status == 421
        with pytest.raises(InputError, match="choose another --port"):
            Server(finished, None, server.server_port)
        server.shutdown()
        thread.join()


def test_a_figure_fits_the_page_it_is_in() -> None:
    from sweep.report import figures

    drawn = figures.bars([HOSTILE, "#0b5cad"], [figures.Series("a", [1.0, None], [0.5, None], [2.0, None])], "unit")
    one, other = (svg.inline(drawn, name, 'said "so" <b>') for name in ("one", "other"))
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, other)]
    assert not ids[0] & ids[1]
    assert all(name in ids[0] for name in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', one)[0] if name)
    tags = "".join(re.findall(r"<[^>]*>", one))
    assert "var(--one)" in tags
    assert not set(svg.COLOURS.values()) & set(re.findall(r"#[0-9a-f]{6}", tags))
    assert ">#0b5cad</text>" in one
    assert 'aria-label="said &quot;so&quot; &lt;b&gt;"' in one
    assert "<img" not in one


def test_a_folder_that_cannot_be_written_is_said(finished: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --figures"):
        gather(finished).save_figures(tmp_path / "file", "svg")
