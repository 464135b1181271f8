"""The report in a real browser: divider, keys, charts, tables, phones, contrast, and hostile names."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cod_jax.evaluation.report.page import write_report
from tests.report_fixtures import write_evaluation

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CONTRAST = Path(__file__).with_name("contrast.js")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)<:script>.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with api.sync_playwright() as playwright:
        # Users of a container are often root, for whom Chromium has no sandbox.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    names = ["first.png", "second.png", "third.png", "fourth.png", HOSTILE]
    evaluation, source, _ = write_evaluation(folder, names=names)
    write_report(evaluation, source, folder / "report.html", notes=[HOSTILE])
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The report in a window; the parameter changes the window. At the end nothing may have been complained about."""
    options = {"viewport": {"width": 1280, "height": 900}, **getattr(request, "param", {})}
    context = browser.new_context(**options)
    context.set_default_timeout(5000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("html.ready", timeout=5000)
    yield page
    context.close()
    assert complaints == []


def _split(page: Any) -> float:
    return float(
        page.evaluate("getComputedStyle(document.querySelector('.stage')).getPropertyValue('--split')").rstrip("%")
    )


def test_the_divider_follows_pointer_and_keys(opened: Any):
    stage = opened.locator(".stage")
    opened.evaluate("Promise.all([...document.querySelectorAll('.stage img')].map((one) => one.decode()))")
    box = stage.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60)
    opened.mouse.up()
    assert _split(opened) == pytest.approx(25, abs=1)
    clip = opened.evaluate("getComputedStyle(document.querySelector('.layer.right')).clipPath")
    assert "25" in clip
    opened.keyboard.press("ArrowRight")
    assert _split(opened) == pytest.approx(27, abs=1)
    slider = opened.get_by_label("Position of the divider")
    slider.focus()
    opened.keyboard.press("Home")
    assert _split(opened) == 0


def test_pictures_rates_zoom_and_flicker_have_keys(opened: Any):
    stage = opened.locator(".stage")
    stage.focus()
    name = opened.locator(".panel h3")
    assert name.text_content() == "first.png"
    opened.keyboard.press("]")
    assert name.text_content() == "second.png"
    opened.keyboard.press("3")
    assert opened.locator(".panel .segments button").nth(2).get_attribute("aria-pressed") == "true"
    before = opened.locator(".zoom-value").text_content()
    opened.keyboard.press("+")
    opened.keyboard.press("+")
    assert "scale(2)" in opened.locator(".layer.left img").get_attribute("style")
    opened.keyboard.press("0")
    assert opened.locator(".zoom-value").text_content() == before
    left = opened.locator(".tag.left").text_content()
    opened.keyboard.down("Space")
    assert opened.locator(".tag.left").text_content() != left
    opened.keyboard.up("Space")
    assert opened.locator(".tag.left").text_content() == left
    opened.keyboard.press("f")
    assert opened.get_by_role("button", name="Flicker").get_attribute("aria-pressed") == "true"
    opened.locator(".tag.left", has_not_text=left).wait_for(timeout=3000)
    opened.keyboard.press("f")


def test_the_original_and_every_codec_can_be_chosen(opened: Any):
    options = opened.locator("select[aria-label='Right picture'] option").all_text_contents()
    assert options[:2] == ["Original", "compact (1 step)"]
    assert "WebP" in options
    opened.locator("select[aria-label='Left picture']").select_option(label="Original")
    assert opened.locator(".tag.left").text_content() == "Original"
    assert opened.locator(".pair tbody tr").first.text_content().startswith("Bytes")


def test_charts_name_the_point_below_the_pointer_and_the_one_that_keys_choose(opened: Any):
    chart = opened.locator(".chart").first
    chart.scroll_into_view_if_needed()
    mark = chart.locator(".mark").last.bounding_box()
    opened.mouse.move(mark["x"] + 3, mark["y"] + 3)
    assert "PSNR" in chart.locator(".tip").text_content()
    assert chart.locator(".tip").is_visible()
    chart.locator(".plot").focus()
    opened.keyboard.press("ArrowRight")
    first = chart.locator(".unseen").text_content()
    opened.keyboard.press("ArrowRight")
    assert chart.locator(".unseen").text_content() != first
    opened.keyboard.press("ArrowUp")
    assert "bits per pixel" in chart.locator(".unseen").text_content()
    lines = chart.locator("path.line").count()
    opened.locator(".chip").first.click()
    assert chart.locator("path.line").count() == lines - 1


def test_tables_are_sorted_by_a_press_on_a_heading(opened: Any):
    table = opened.locator("#numbers table").last
    heading = table.get_by_role("button", name="Bytes")
    heading.click()
    cells = [int(text.replace("\u202f", "")) for text in table.locator("tbody td:nth-child(2)").all_text_contents()]
    assert cells == sorted(cells, reverse=True)
    assert table.locator("th[aria-sort=descending]").count() == 1
    heading.press("Enter")
    again = [int(text.replace("\u202f", "")) for text in table.locator("tbody td:nth-child(2)").all_text_contents()]
    assert again == sorted(cells)


def test_hostile_names_are_shown_as_they_are(opened: Any):
    assert opened.locator(".note").text_content() == HOSTILE
    opened.locator(".strip button").last.click()
    assert opened.locator(".panel h3").text_content() == HOSTILE


@pytest.mark.parametrize(
    "opened", [{"viewport": {"width": width, "height": 700}} for width in (320, 390, 768)], indirect=True
)
def test_nothing_scrolls_sideways(opened: Any):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.locator(".stage").bounding_box()["width"] > 250


@pytest.mark.parametrize("opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_every_text_has_enough_contrast(opened: Any):
    opened.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    opened.locator(".plot").first.focus()
    opened.keyboard.press("ArrowRight")
    result = opened.evaluate(CONTRAST.read_text())
    assert result["count"] > 200
    assert result["found"] == []


def test_everything_is_reached_by_the_tabulator_and_has_a_name(opened: Any):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    reached = set()
    for _ in range(400):
        opened.keyboard.press("Tab")
        reached |= set(opened.evaluate("[document.activeElement.tagName, ...document.activeElement.classList]"))
        if "BODY" in reached:
            break
    assert {"stage", "split", "plot", "chip", "scroller", "case", "SELECT", "SUMMARY"} <= reached
    unnamed = """[...document.querySelectorAll('button, select, input, [tabindex]')].filter((one) =>
        !(one.getAttribute('aria-label') || one.textContent.trim() || one.querySelector('img[alt]'))).length"""
    assert opened.evaluate(unnamed) == 0


def test_it_prints(opened: Any, tmp_path: Path):
    opened.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()


def test_a_model_without_rivals_is_shown_beside_the_original(browser: Any, tmp_path: Path):
    evaluation, source, results = write_evaluation(tmp_path)
    results |= {"curves": results["curves"][:1], "bd": []}
    (evaluation / "results.json").write_text(json.dumps(results))
    write_report(evaluation, source, tmp_path / "report.html")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html.ready", timeout=5000)
    assert [page.locator(f".tag.{side}").text_content() for side in ("left", "right")] == [
        "Original",
        "compact (1 step)",
    ]
    assert "Each other codec" not in page.locator("#pictures").text_content()
    page.close()
