# An Astro Runtime image of Airflow 3.3 can be the base instead: --build-arg BASE=... --build-arg ACCOUNT=astro
ARG BASE=apache/airflow:3.3.2-python3.11
FROM ${BASE}
ARG ACCOUNT=airflow

USER root
COPY packages.txt /tmp/packages.txt
RUN apt-get update && xargs -r apt-get install -y --no-install-recommends < /tmp/packages.txt && rm -rf /var/lib/apt/lists/*
# WORKDIR would leave the folder to root, and Airflow writes its configuration and logs there.
RUN mkdir -p /usr/local/airflow && chown ${ACCOUNT}:0 /usr/local/airflow

USER ${ACCOUNT}
ENV AIRFLOW_HOME=/usr/local/airflow PYTHONPATH=/usr/local/airflow:/usr/local/airflow/plugins
WORKDIR /usr/local/airflow
COPY --chown=${ACCOUNT}:0 requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=${ACCOUNT}:0 . .
