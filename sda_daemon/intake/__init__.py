"""Intake: noticing checkpoints and waiting until they are complete."""
