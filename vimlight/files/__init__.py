"""Files: written whole or not at all, tensors with a card, and programs as graphs."""
