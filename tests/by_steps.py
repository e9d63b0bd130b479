"""Runs a method by steps to its end, as the runner does but without saving anything."""

from fisherexp.methods.iterative import IterativeMethod


def finished(method: IterativeMethod) -> IterativeMethod:
    """The same method, begun before, when it is done."""
    while not method.done:
        method.step()
    return method
