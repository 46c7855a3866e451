# With the Astro CLI, give the Astro Runtime image of Airflow 3.3 as BASE: it installs packages.txt and requirements.txt and
# copies the project by itself. Any other base is served by the lines below.
ARG BASE=apache/airflow:3.3.2-python3.11
FROM ${BASE}

USER root
COPY packages.txt /tmp/packages.txt
RUN apt-get update && xargs -r apt-get install -y --no-install-recommends < /tmp/packages.txt && rm -rf /var/lib/apt/lists/*

USER airflow
ENV AIRFLOW_HOME=/usr/local/airflow PYTHONPATH=/usr/local/airflow:/usr/local/airflow/plugins
WORKDIR /usr/local/airflow
COPY --chown=airflow:0 requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=airflow:0 . .
