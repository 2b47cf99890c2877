"""Preparing data: times, velocities, and a look over an object before a fit."""

from wlm._adata.labels import parse_time
from wlm.pp._doctor import doctor
from wlm.pp._growth_prior import growth_prior
from wlm.pp._scvelo import velocity
from wlm.pp._time import bin_time
from wlm.pp._velocity import project_velocity

__all__ = ["bin_time", "doctor", "growth_prior", "parse_time", "project_velocity", "velocity"]
