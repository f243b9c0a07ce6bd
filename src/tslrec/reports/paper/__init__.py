"""The paper's tables and figures: the runs they need, the results of those runs, and how they are shown."""
