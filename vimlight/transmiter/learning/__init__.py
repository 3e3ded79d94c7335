"""Learning an adapter: from the change of a source's logits, and further with a few labels of the target."""
