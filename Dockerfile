# actionprep and actiontrain in one image, from the versions in constraints.txt.
# CPU:   docker build -t actionprep .
# CUDA:  docker build -t actionprep:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
# Not yet run: the file is checked with hadolint only.
FROM python:3.11-slim-bookworm

# Where torch comes from: builds for CPUs, or the ordinary index, whose Linux builds contain CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/actionprep
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir "$(grep '^torch==' constraints.txt)" --index-url "$TORCH_INDEX"

COPY pyproject.toml README.md LICENSE ./
COPY actionprep actionprep
RUN python -m pip install --no-cache-dir -c constraints.txt '.[s3,hf,export,formats]' \
    && useradd --create-home --uid 1000 actionprep \
    && mkdir /study \
    && chown actionprep /study

USER 1000
WORKDIR /study
# Each process of a cluster uses one core; libraries must not start a thread per core in each of them.
ENV OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
CMD ["actionprep", "--help"]
