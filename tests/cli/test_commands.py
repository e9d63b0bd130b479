"""`table`, `plot` and `report` on folders of run records: what they write, what they leave out, how they end."""

import json

import pytest
from made_records import record
from typer.testing import CliRunner

from fisherexp.cli import app

GOOD = [record(method, seed, 90.0 + seed) for method in ("ssd", "erm") for seed in (0, 1)]
DAMAGE = {
    "half-written": ('{"metrics": {"after"', "JSONDecodeError"),
    "not text": (b"\xff\xfe", "UnicodeDecodeError"),
    "a list": ("[]", "does not hold a run record"),
    "without its mark of trials": (json.dumps({k: v for k, v in GOOD[0].items() if k != "trial"}), "it lacks trial"),
    "without its command": (json.dumps({k: v for k, v in GOOD[0].items() if k != "command"}), "it lacks command"),
    "without figures": (json.dumps(GOOD[0] | {"metrics": None}), "it lacks metrics.after"),
    "of an unnamed model": (json.dumps(GOOD[0] | {"names": {"method": "ssd"}}), "it lacks names.data, names.model"),
}


def lay(output_dir, identity, content):
    """A run folder below `output_dir` that holds `content` as its record."""
    folder = output_dir / "ssd" / "digits" / identity
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def output_dir(tmp_path):
    for run in GOOD:
        lay(tmp_path / "outputs", run["identity"], json.dumps(run))
    return tmp_path / "outputs"


def call(output_dir, command, *arguments):
    return CliRunner().invoke(app, [*command.split(), "--output-dir", str(output_dir), *map(str, arguments)])


COMMANDS = ["table", "plot trade_off", "report"]
FILES = {"table": "a.tex", "plot trade_off": "a.pdf", "report": "a.html"}


@pytest.mark.parametrize("command", COMMANDS)
def test_o_names_the_file_to_write(command, output_dir, tmp_path):
    done = call(output_dir, command, "-o", tmp_path / FILES[command])
    assert done.exit_code == 0, done.output
    assert (tmp_path / FILES[command]).stat().st_size > 500


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_written_is_no_success(command, tmp_path):
    done = call(tmp_path / "nowhere", command, "-o", tmp_path / FILES[command])
    assert done.exit_code == 1
    assert "no finished run" in done.output
    assert call(tmp_path / "nowhere", "table").exit_code == 0  # to look is not to write


def test_several_files_from_one_call(output_dir, tmp_path):
    files = [tmp_path / f"t.{ending}" for ending in ("md", "tex", "csv")]
    assert call(output_dir, "table", *(word for file in files for word in ("-o", file))).exit_code == 0
    assert all("retain" in file.read_text() for file in files)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named_and_the_rest_is_shown(command, damage, output_dir, tmp_path):
    content, reason = DAMAGE[damage]
    folder = lay(output_dir, "damaged", content)
    done = call(output_dir, command, "-o", tmp_path / FILES[command])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    assert f"{folder / 'run.json'} cannot be read: " in done.output
    assert reason in done.output
    assert (tmp_path / FILES[command]).is_file()


TORN = {
    "collapse": ("neural_collapse.csv", "epoch,clean/nc1\n1,0.5\n2"),
    "projection": ("neural_collapse.safetensors", "torn"),
    "fisher": ("fisher.safetensors", ""),
}


@pytest.mark.parametrize("kind", TORN)
def test_a_torn_file_beside_a_record_is_named(kind, output_dir, tmp_path):
    name, content = TORN[kind]
    run = record("salun", 0, 90.0) | {"outcome": {"trace_by_layer": {"a": 1.0}}}
    run["config"] = run["config"] | {"method": {"importance": {"gradients": "per_sample", "labels": "empirical"}}}
    folder = lay(output_dir, "left", json.dumps(run))
    (folder / name).write_text(content)
    done = call(output_dir, f"plot {kind}", "-o", tmp_path / "a.png")
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert f"{folder / name} cannot be read" in done.output
    assert not (tmp_path / "a.png").exists()
    done = call(output_dir, "report", "-o", tmp_path / "a.html")
    assert done.exit_code == 1
    assert f"{folder / name} cannot be read" in done.output
    assert f"{folder / name}: " in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_trials_are_left_out_unless_asked_for(command, output_dir, tmp_path):
    lay(output_dir, "debug", json.dumps(record("salun", 0, 10.0) | {"trial": True}))
    lay(output_dir, "dirty", json.dumps(record("scrub", 0, 10.0) | {"code": {"commit": "0", "dirty": True}}))
    assert "2 trial runs left out" in call(output_dir, command, "-o", tmp_path / FILES[command]).output
    assert "left out" not in call(output_dir, command, "--trials", "-o", tmp_path / FILES[command]).output
    assert {"salun", "scrub"} <= set(call(output_dir, "table", "--trials").output.split())


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("table", ["--metrics", ""], "name some, or leave the option out"),
        ("table", ["--baseline", " "], "names no method"),
        ("plot trade_off", ["--over", "nope"], "no run has a 'nope'"),
        ("table", ["output_dir=elsewhere"], "write --output-dir elsewhere"),
        ("table", ["--metrics", "retain_acuracy"], "nearest: retain_accuracy"),
        ("table", ["--baseline", "sdd"], "there are erm, ssd"),
        ("table", ["-o", "t.xlsx"], "a table is written as .md, .tex, .csv, .parquet"),
        ("plot trade_of", [], "nearest: trade_off"),
        ("plot trade_off", ["--y", "retain"], "choose from"),
        ("report", ["method"], "is no filter"),
    ],
)
def test_bad_input_is_one_line(command, arguments, message, output_dir):
    done = call(output_dir, command, *arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1
