"""The end of a job: its arms and their scores, the verdict's files, the card and its pictures. Imports `run` and the rooms below it."""
