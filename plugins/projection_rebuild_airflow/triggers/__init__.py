"""Triggers wait without a worker, in Airflow's triggerer. They can read all that a worker can, except the DAG files."""
