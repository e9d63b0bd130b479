"""Joint training: all tasks at once, shuffled together. The upper baseline, which keeps everybody's data.

As many epochs over all tasks as the other methods spend on each: the number of steps is the same.
"""

from fisherexp.methods.training.erm import ERM


class Joint(ERM):
    """Minimize mean cross-entropy over the training images of all tasks."""

    paper = "Caruana, Machine Learning 1997"
    scenarios = ("task_sequence",)
    fits_on = "every_task"
