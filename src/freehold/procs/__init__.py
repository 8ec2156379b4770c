"""Child processes: the one layer by which other programs run, the cores they may use, and venvs for stock clients."""
