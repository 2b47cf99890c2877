"""Preparing data: times and velocities."""

from wlm.pp._scvelo import velocity
from wlm.pp._time import bin_time, parse_time
from wlm.pp._velocity import project_velocity

__all__ = ["bin_time", "parse_time", "project_velocity", "velocity"]
