"""Preparing data: times and velocities."""

from wlm.pp._time import parse_time

__all__ = ["parse_time"]
