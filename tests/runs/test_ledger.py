"""What several processes tell of a sweep's runs arrives whole, in one file."""

import os
import subprocess
import sys

from fisherexp.runs.ledger import VARIABLE, Entry, Ledger, Outcome

TELL = """
import sys
from fisherexp.runs.ledger import Ledger, Outcome
for i in range(200):
    Ledger.of_sweep().add(Outcome.DONE, f"{sys.argv[1]}/{i}", "x" * 500)
"""


def test_entries_of_several_processes_do_not_mix(tmp_path):
    ledger = Ledger(tmp_path / "new" / "ledger.jsonl")
    ledger.open()
    tellers = [subprocess.Popen([sys.executable, "-c", TELL, name]) for name in "ab"]
    assert [teller.wait() for teller in tellers] == [0, 0]
    entries = ledger.close()
    for name in "ab":
        own = [entry.folder for entry in entries if entry.folder.startswith(name)]
        assert own == [f"{name}/{i}" for i in range(200)]
    assert VARIABLE not in os.environ
    assert Ledger.of_sweep() is None
    assert not ledger.path.exists()


def test_failures_are_seen_as_soon_as_they_are_told(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open()
    ledger.add(Outcome.DONE, "a")
    assert not ledger.has_failures()
    ledger.add(Outcome.FAILED, "b", "ValueError: no")
    assert ledger.has_failures()
    assert ledger.close() == [Entry(Outcome.DONE, "a"), Entry(Outcome.FAILED, "b", "ValueError: no")]
