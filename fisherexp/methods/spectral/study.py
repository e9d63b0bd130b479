"""What all studies of a trained model's curvature share: they take it from the store and change nothing."""

from fisherexp.methods.method import ModelMethod


class Study(ModelMethod):
    """Looks at the source in `leave_files` and leaves every weight as it is. `needs` of a subclass: at what of it."""

    start = "source"
    study = True
    epochs = 0
