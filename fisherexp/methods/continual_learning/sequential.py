"""Naive fine-tuning: each task in turn, with nothing to hold what was learned before. The lower baseline."""

from fisherexp.methods.continual_learning.sequence import TaskTraining


class Sequential(TaskTraining):
    """Train on each task in turn and remember nothing."""

    paper = "McCloskey, Cohen, Psychology of Learning and Motivation 1989"
