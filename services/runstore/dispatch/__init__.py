"""Brings runs of graphs to workers and what they say to those who wait."""
