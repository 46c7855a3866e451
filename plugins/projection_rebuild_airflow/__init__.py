"""Projection rebuilds in Airflow: operators, sensors and the DAG factory over the engine in ``include``."""
