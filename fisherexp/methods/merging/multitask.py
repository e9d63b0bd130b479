"""Multi-task training: one network on all tasks at once, from new weights. What merging is measured against.

Caruana, Machine Learning 1997.
"""

from fisherexp.methods.training.erm import ERM


class Multitask(ERM):
    """Plain training on the training images of every task."""

    paper = "Caruana, Machine Learning 1997"
    scenarios = ("tasks", "task_sequence")
    fits_on = "every_task"
