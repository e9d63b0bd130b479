"""What a model is trained for: a loss, the likelihood it belongs to and the metrics of evaluation, in one object."""
