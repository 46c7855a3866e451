"""Triggers wait without a worker, in Airflow's triggerer. They see what a worker sees, except the DAG files."""
