"""Faults, injected on purpose into the whole service: `./dev faults`. Also a plugin package, for its method `chain`."""
