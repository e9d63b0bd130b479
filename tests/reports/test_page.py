"""The page holds every run, and a real browser opens, sorts and filters it and follows a link to a run."""

import base64
import json
import re
import shutil
import zlib

import pytest
from made_records import record

from fisherexp.reports.page import page
from fisherexp.reports.page.run import curves

RUNS = [record(m, s, v - s) for m, v in (("ssd", 99.0), ("<erm>", 80.0)) for s in (0, 1, 2)]


def content(file):
    packed = re.search(r'octet-stream">([^<]+)<', file.read_text()).group(1)
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_it_holds_every_run_and_nothing_from_elsewhere(tmp_path):
    written = page(RUNS, [], {tmp_path / "half" / "run.json": "broken"}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert written.size == len(text.encode())
    runs = content(tmp_path / "report.html")["runs"]
    assert {(r["names"]["method"], r["seed"], r["metrics"]["after"]["retain_accuracy"]) for r in runs} == {
        (r["names"]["method"], r["seed"], r["metrics"]["after"]["retain_accuracy"]) for r in RUNS
    }
    assert "half/run.json: broken" in text
    assert "&lt;erm&gt;" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # no network, no files beside it


def test_numbers_that_json_lacks_become_text(tmp_path):
    run = record("ssd", 0, float("nan"))
    page([run, record("erm", 0, 1.0)], [], {}, tmp_path / "report.html")
    assert content(tmp_path / "report.html")["runs"][0]["metrics"]["after"]["retain_accuracy"] == "nan"


def test_curves_are_thinned_and_keep_their_ends(tmp_path):
    lines = ["step,loss,once", *(f"{i},{i / 2}," for i in range(1000)), "1000,7,1.5"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    found = curves(tmp_path / "metrics.csv")
    assert list(found) == ["loss"]
    assert found["loss"][0] == [0, 0]
    assert found["loss"][-1] == [1000, 7]
    assert len(found["loss"]) <= 151
    assert curves(tmp_path / "missing.csv") == {}


def test_torn_curves_are_named_and_the_run_is_shown(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("step,loss\n0,1.0\n1,0.5\n2,tor")
    run = RUNS[0] | {"folder": str(tmp_path)}
    written = page([run, RUNS[1]], [], {}, tmp_path / "report.html")
    assert list(written.damaged) == [tmp_path / "csv" / "metrics.csv"]
    assert "metrics.csv: " in (tmp_path / "report.html").read_text()
    assert [bool(run["curves"]) for run in content(tmp_path / "report.html")["runs"]] == [False, False]


def test_methods_come_before_references_and_problems_apart(tmp_path):
    runs = [record(m, 0, v) for m, v in (("ssd", 99.0), ("erm", 80.0))] + [record("ssd", 0, 50.0, data="mnist")]
    for run in runs:
        run["metrics"]["before"] = {"retain_accuracy": 1.0}
    page(runs, [], {}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    first, second = re.findall(r"<section.*?</section>", text, re.DOTALL)
    assert first.index("Who is best") < first.index(">ssd<") < first.index(">(before)<")
    assert "mnist" not in first
    assert "mnist" in second
    assert "Who is best" not in second  # there is one row


def test_runs_that_have_none_of_the_usual_metrics_are_shown(tmp_path):
    run = record("sinkhorn", 0, 1.0, data="random_assignment")
    run["metrics"]["after"] = {"error": 0.25, "gap": 0.125}
    page([*RUNS, run], [], {}, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("<section") == 2
    (found,) = [run for run in content(tmp_path / "report.html")["runs"] if run["names"]["data"] == "random_assignment"]
    assert found["metrics"]["after"] == {"error": 0.25, "gap": 0.125}


def test_the_list_of_runs_has_the_options_that_differ(tmp_path):
    runs = [record("ssd", seed, 90.0, alpha=alpha) for alpha in (0.1, 0.2) for seed in (0, 1)] + [record("erm", 0, 1.0)]
    page(runs, [], {}, tmp_path / "report.html")
    assert [run["options"] for run in content(tmp_path / "report.html")["runs"]] == [
        *["alpha=0.1"] * 2,
        *["alpha=0.2"] * 2,
        "",
    ]


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.mark.end_to_end
@pytest.mark.parametrize(("width", "wide"), [(1280, False), (390, True)])
def test_a_wide_table_scrolls_under_its_first_column_and_the_page_does_not(browser, tmp_path, width, wide):
    from selenium.webdriver.support.ui import WebDriverWait

    page([run | {"identity": f"{i:012d}"} for i, run in enumerate(RUNS)], [], {}, tmp_path / "report.html")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((tmp_path / "report.html").as_uri())
    WebDriverWait(browser, 30).until(lambda b: b.find_element("tag name", "body").get_attribute("data-ready"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    moved = """const box = document.querySelector(".summary").parentElement, cells = box.querySelectorAll("tbody td");
        const at = () => [cells[0], cells[3]].map((cell) => cell.getBoundingClientRect().left), before = at();
        box.scrollLeft = 60;
        return [box.scrollLeft, ...at().map((left, i) => before[i] - left)];"""
    scrolled, first, later = browser.execute_script(moved)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert (scrolled > 0) == wide
    assert (first, later) == (0, scrolled)


@pytest.mark.end_to_end
def test_in_a_browser(browser, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    def column(number):
        return [e.text for e in browser.find_elements("css selector", f"#runs tbody td:nth-child({number})")]

    page(RUNS, [], {}, tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    WebDriverWait(browser, 30).until(lambda b: b.find_element("tag name", "body").get_attribute("data-ready"))
    assert len(column(1)) == 6

    heads = browser.find_elements("css selector", "#runs th")
    (retain,) = [i for i, head in enumerate(heads, start=1) if head.text.startswith("retain")]
    heads[retain - 1].click()
    assert column(retain) == ["78.0", "79.0", "80.0", "97.0", "98.0", "99.0"]
    browser.find_elements("css selector", "#runs th")[retain - 1].click()
    assert column(retain)[0] == "99.0"

    browser.find_element("id", "filter").send_keys("ssd seed=1")
    assert column(2) == ["ssd"]
    assert browser.find_element("id", "count").text == "1 of 6"

    browser.find_element("css selector", "#runs tbody a").click()
    WebDriverWait(browser, 10).until(lambda b: b.find_element("id", "run").is_displayed())
    assert browser.find_element("id", "command").text == RUNS[1]["command"] + " rerun=true"
    assert not browser.find_element("id", "overview").is_displayed()

    theme = browser.execute_script("return document.documentElement.dataset.theme")
    browser.find_element("id", "theme").click()
    assert browser.execute_script("return document.documentElement.dataset.theme") != theme
    assert browser.get_log("browser") == []
