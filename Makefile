# make demo: the whole loop on a simulated station. make test: all tests (ARGS="..." goes to pytest).
# Each sets up first what is missing.
.PHONY: demo test setup
SHELL := /bin/bash

demo:
	@exec ./enpire demo $(ARGS)

test:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" $(MAKE) --no-print-directory test && \
	exec python -m pytest $(ARGS)

setup:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" true
