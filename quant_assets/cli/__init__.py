"""The `quant` command: one file per command, and what the commands share to run the graph."""
