"""Image-text models as this half sees them, the sentences around class names, and the vocabulary beside them."""
