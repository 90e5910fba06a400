"""What outlives a fit: models as files, other formats of them, what teachers said. Imports `fitting` and what is below."""
