"""Architectures. A backbone maps images to features; `classifier.Classifier` adds scaling and a head."""
