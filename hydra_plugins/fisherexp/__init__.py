"""Where Hydra looks for plugins: it imports this at every start, so nothing here is heavy."""
