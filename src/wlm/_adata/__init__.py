"""From AnnData and MuData to the core: times, coordinates, velocities, weights, conditions, genes."""
