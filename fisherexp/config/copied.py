"""Copies of configs."""

import pickle

from omegaconf import DictConfig


def copied(config: DictConfig) -> DictConfig:
    """A config with the same nodes that shares none of them. copy.deepcopy takes three times as long: it walks through
    the metadata of every value in Python."""
    return pickle.loads(pickle.dumps(config, pickle.HIGHEST_PROTOCOL))
