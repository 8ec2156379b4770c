"""Where models come from: one interface (`source`), and its implementations for hubs, packages and folders."""
