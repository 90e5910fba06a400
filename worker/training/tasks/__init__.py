"""What a head predicts, and how a task is named. Keras only inside functions. Imports `app.spec` alone."""
