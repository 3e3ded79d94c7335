"""The pictures of the README and the documentation: `python -m benchmarks.pictures` draws them into docs/pictures."""
