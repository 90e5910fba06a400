"""How fast the service trains, against what others do with the same numbers. `__main__` says which measurements there are."""
