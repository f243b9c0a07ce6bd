"""The paper's tables and figures: which runs they need, what those reached, and how it is shown."""
