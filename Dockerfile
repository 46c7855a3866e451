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
ENV AIRFLOW_HOME=/usr/local/airflow PYTHONPATH=/usr/local/airflow:/usr/local/airflow/include:/usr/local/airflow/plugins
WORKDIR /usr/local/airflow
# Every package in the version and with the content that was tested, Airflow itself included; pip refuses any other. An Astro
# image has installed requirements.txt by then, without hashes; this puts right what differs.
COPY --chown=${ACCOUNT}:0 locks/runtime.txt locks/runtime.txt
RUN pip install --no-cache-dir --require-hashes -r locks/runtime.txt
COPY --chown=${ACCOUNT}:0 . .
