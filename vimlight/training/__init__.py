"""The LightningModules of Vision Middleware: a module on its own data, and a zoo aggregated for a task."""
