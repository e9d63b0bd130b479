"""Policy gradients: ascent of the expected return by what sampled episodes say about its gradient and Hessian."""
