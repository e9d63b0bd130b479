"""Imports what a command needs once, and forks for each command. tests/forked.py starts and asks it.

    python fork_server.py SOCKET    its end of a Unix socket, inherited

It imports and computes nothing: threads that torch had started would be missing in a fork. A command finds the
environment, directory, paths and signals of a new process, and ends as one.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import types

# Each heavy library, and the rooms that import the rest of ours.
LOADED = ("sklearn.datasets", "hydra", "matplotlib.figure", "fisherexp.experiment", "fisherexp.reports.table")
LOADED += ("fisherexp.app", "fisherexp.cli", "fisherexp.contract.options")
OF_THE_SERVER = sys.path[0]


def serve(control: socket.socket) -> socket.socket:
    """Fork for each connection that arrives; returns in the command's process, and there only."""
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        _bury()
        if not descriptors:  # who asked is gone
            sys.exit()
        connection = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            control.close()
            for stream, descriptor in enumerate(descriptors[1:], start=1):
                os.dup2(descriptor, stream)
                os.close(descriptor)
            return connection
        connection.close()
        for descriptor in descriptors[1:]:
            os.close(descriptor)


def _bury() -> None:
    """Take notice of the watchers that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def watch(connection: socket.socket) -> dict:
    """Fork once more; tell the command's process id and, at its end, how it ended. Returns in the command: what it is.

    The watcher is its parent, so the command can be killed as any process.
    """
    lines = connection.makefile("rw")
    asked = json.loads(lines.readline())
    process = os.fork()
    if process == 0:
        lines.close()
        connection.close()
        return asked
    lines.write(f"{process}\n")
    lines.flush()
    _, status = os.waitpid(process, 0)
    lines.write(f"{os.waitstatus_to_exitcode(status)}\n")
    lines.flush()
    os._exit(0)


def become(asked: dict) -> None:
    """Run a command as `python ARGUMENTS…` would: a file, `-m module` or `-c code`."""
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first, *rest = asked["arguments"]
    given = os.environ.get("PYTHONPATH", "")
    own = os.path.dirname(os.path.abspath(first)) if not first.startswith("-") else ""
    sys.path[:] = [own, *filter(None, given.split(os.pathsep)), *LIBRARIES]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    LIBRARIES = [path for path in sys.path[1:] if path not in before]
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    become(watch(serve(socket.socket(fileno=int(sys.argv[1])))))
