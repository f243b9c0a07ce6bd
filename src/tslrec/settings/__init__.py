"""What may be set: a dataclass for each section, bounds beside the fields.

Nothing heavy is imported, so that a typo is refused at once.
"""
