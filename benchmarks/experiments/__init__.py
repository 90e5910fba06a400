"""What `benchmarks/quality.py` measures: one module for each question, over jobs that run as a trainer runs them."""
