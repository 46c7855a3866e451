"""What the tests in a browser share: a running Airflow, and the applications that it rebuilds."""
