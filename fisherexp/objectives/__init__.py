"""What a model is trained for: a loss, the likelihood it belongs to, and the metrics of plain evaluation, in one object."""
