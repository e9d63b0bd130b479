"""fisherexp: honest experiments with curvature-aware methods. Importing this costs nothing; rooms load by name."""

__version__ = "0.1.0"
