"""What was measured and what it means: metrics, the verdict, its sentence. NumPy and SciPy only. Imports no other room."""
