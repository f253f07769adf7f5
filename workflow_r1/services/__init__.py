"""How operators are served: endpoints, search, limits, faults, cache and what it all takes."""
