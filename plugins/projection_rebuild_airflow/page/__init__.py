"""The page "Projection rebuilds" in Airflow's UI: thin routes, a pure view model, and the files for the browser."""
