"""A forked command is a process like any other: its arguments, environment, paths, status, signals, output."""

import json
import os
import signal
import subprocess

import forked
import pytest

TELL = """
import json, os, sys
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["WORD"], os.getpid(), sys.path[:2], __name__]))
print("in error", file=sys.stderr)
sys.exit(3)
"""
# Waits until it is told to end, and says then that it was.
WAIT = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended in order"))
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


@pytest.fixture
def waiting(tmp_path):
    process = forked.Popen("-c", WAIT, tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, process.communicate()
    yield process
    process.kill()


def test_it_has_its_own_arguments_directory_environment_and_paths(tmp_path):
    environment = os.environ | {"WORD": "said", "PYTHONPATH": str(tmp_path / "package")}
    done = forked.run("-c", TELL, "a b", 3, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "in error\n")
    arguments, directory, word, process, paths, name = json.loads(done.stdout)
    assert (arguments, directory, word, name) == (["a b", "3"], str(tmp_path), "said", "__main__")
    assert paths == ["", str(tmp_path / "package")]
    assert process != os.getpid()


def test_what_one_does_the_next_does_not_see():
    change = "import os, sys, torch; os.environ['WORD'] = 'x'; sys.modules['gone'] = sys; torch.rand(1)"
    look = "import os, sys, torch; print('WORD' in os.environ, 'gone' in sys.modules, torch.initial_seed())"
    before = forked.run("-c", look).stdout
    assert before.startswith("False False")
    assert forked.run("-c", change).returncode == 0
    assert forked.run("-c", look).stdout == before


def test_an_error_is_a_traceback_and_status_one():
    done = forked.run("-c", "import atexit; atexit.register(print, 'at its end'); 1 / 0")
    assert (done.returncode, done.stdout) == (1, "at its end\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 1, "ended in order\n"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, -signal.SIGINT, None),
    ],
)
def test_signals_reach_it(waiting, number, status, said):
    assert waiting.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.01)
    os.kill(waiting.pid, number)
    assert waiting.wait(timeout=30) == status
    assert waiting.poll() == status
    errors = waiting.communicate()[1]
    assert errors == said if said is not None else errors.endswith("KeyboardInterrupt\n")


def test_output_goes_to_a_file_as_it_comes(tmp_path):
    with (tmp_path / "log").open("w") as file:
        code = "import sys; print('one', flush=True); print('two', file=sys.stderr)"
        assert forked.Popen("-c", code, stdout=file, stderr=file).wait() == 0
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_it_computes_with_what_was_imported_already():
    """The point of it, and the control: a new process has imported nothing."""
    code = "import sys; print('torch' in sys.modules, 'pytorch_lightning' in sys.modules)"
    assert forked.run("-c", code).stdout == "True True\n"
    assert forked.run_anew("-c", code).stdout == "False False\n"
    assert forked.run("-c", "import torch; print((torch.ones(300, 300) @ torch.ones(300, 1)).sum().item())").stdout == (
        "90000.0\n"
    )
