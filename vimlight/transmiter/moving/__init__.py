"""Moving an adapter: to another model by a closed form, and into a file that runs without this package."""
