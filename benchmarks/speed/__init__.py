"""One benchmark a file; each is found by its decorator."""
