"""Triggers: what waits without a worker. They run in Airflow's triggerer, and see what a worker sees but the DAG files."""
