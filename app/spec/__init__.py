"""The words of a job: pydantic models and plain data, read by the API, the worker and the trainer alike."""
