"""Generation: images from noise."""
