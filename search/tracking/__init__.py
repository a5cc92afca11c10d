"""The mirror of studies in MLflow, and its page. Importing this imports no mlflow."""
