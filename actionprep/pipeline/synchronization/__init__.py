"""Estimate offset and drift between the clocks of the views of a recording from what they show or hear."""
