"""Where rooms meet: one story per file, read top to bottom. Every flow takes (parts, caller, ...) and authorises first."""
