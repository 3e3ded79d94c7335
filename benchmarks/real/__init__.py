"""Real weights, real images: what the suite is made of, and the benchmarks that run on it."""
