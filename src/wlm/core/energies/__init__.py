"""Energies: of whole populations with their force, and landscapes of single cells and pairs."""
