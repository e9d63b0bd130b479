"""What a run is about: data to learn from, an environment to act in, an instance to solve."""
