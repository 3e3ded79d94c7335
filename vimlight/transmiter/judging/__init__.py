"""Judging: what is compared on which classes and images, by which methods, and how sure the difference is."""
