"""The trainer as a process: reports, metrics, failures, durable files, the device, the guard. Imports no other room."""
