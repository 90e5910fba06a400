"""The trainer as a process: reports, metrics, failures, the device, the guard. Imports no other room."""
