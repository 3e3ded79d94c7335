"""The subcommands of the command line that are no training: one file each, with a `main(arguments)`."""
