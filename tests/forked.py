"""Command lines in processes of their own that need not import torch: forks of a process that has (fork_server.py).

`run` and `Popen` take what those of `subprocess` take, as far as the tests ask for it. A command is given as for
`python`: "run.py", … or "-m", "fisherexp", … or "-c", code, … Where imports matter, `run_anew` starts a new process.
"""

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SERVER = Path(__file__).with_name("fork_server.py")


class Popen:
    """A command that has begun, as subprocess.Popen.

    stdout, stderr: open files to write to; None for temporary ones, which `communicate` reads.
    """

    def __init__(self, *command: str | Path, env=None, cwd: Path = REPOSITORY, stdout=None, stderr=None) -> None:
        self.args, self.returncode = command, None
        self.stdout = stdout or tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.stderr = stderr or tempfile.TemporaryFile("w+")  # noqa: SIM115
        asked = {"arguments": [*map(str, command)], "directory": str(cwd), "environment": dict(env or os.environ)}
        self._connection, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(_server(), [b"+"], [theirs.fileno(), self.stdout.fileno(), self.stderr.fileno()])
        self._connection.sendall(json.dumps(asked).encode() + b"\n")
        self.pid = int(self._line())

    def poll(self) -> int | None:
        """Exit status (negative: the signal that ended it), or None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Exit status at the command's end. Raises subprocess.TimeoutExpired."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that the command printed and all its errors, at its end."""
        self.wait(timeout)
        for file in (self.stdout, self.stderr):
            file.seek(0)
        return self.stdout.read(), self.stderr.read()

    def send_signal(self, number: int) -> None:
        """Nothing where the command has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            piece = self._connection.recv(1)
            if not piece:
                raise RuntimeError("the fork server or a watcher of it is gone")
            line += piece
        return line

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = int(self._line())
            self._connection.close()
        return self.returncode


def run(*command: str | Path, timeout: float | None = None, **options) -> subprocess.CompletedProcess:
    """A command to its end, with what it printed; `options` as for Popen."""
    process = Popen(*command, **options)
    return subprocess.CompletedProcess(command, process.wait(timeout), *process.communicate())


def run_anew(*command: str | Path, env=None) -> subprocess.CompletedProcess:
    """The same in a true new process."""
    return subprocess.run([sys.executable, *command], env=env, cwd=REPOSITORY, capture_output=True, text=True)


@functools.cache
def _server() -> socket.socket:
    """Our end of the socket to a server that lives as long as this process."""
    ours, theirs = socket.socketpair()
    inherited = theirs.fileno()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, SERVER, str(inherited)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            pass_fds=[inherited],
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours
