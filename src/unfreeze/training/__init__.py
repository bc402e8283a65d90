"""Phases, steps and checkpoints: the only place that changes weights."""
