"""Files that outlive a fit: models, their other formats, teachers' outputs. Imports `fitting` and the rooms below it."""
