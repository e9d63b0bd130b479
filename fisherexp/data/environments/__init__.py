"""Environments: whole batches of episodes, each from its start to its end."""
