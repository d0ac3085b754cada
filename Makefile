# make demo: the whole loop on a simulated station. make test: all tests (ARGS="..." goes to pytest).
# make extras: what is optional, by its own licences (see the files): gym-pusht and Ray; the tests install it as well.
# Each sets up first what is missing.
.PHONY: demo test setup extras
SHELL := /bin/bash

demo:
	@exec ./enpire demo $(ARGS)

test:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" $(MAKE) --no-print-directory test && \
	{ $(EXTRAS) || echo 'enpire: without the optional extras; their tests are skipped'; } && \
	exec python -m pytest $(ARGS)

extras:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" $(MAKE) --no-print-directory extras && $(EXTRAS)

EXTRAS := python -m pip install --quiet --no-input --disable-pip-version-check --progress-bar off --no-deps \
	-r requirements-gym.txt -r requirements-ray.txt

setup:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" true
