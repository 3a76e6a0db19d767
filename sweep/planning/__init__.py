"""A space with its records becomes points, stages, packs and costs."""
