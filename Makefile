# make demo: the whole loop on a simulated station. make test: all tests (ARGS="..." goes to pytest).
# make extras: what is optional, by its own licences (see the files): gym-pusht, Ray, the MCP server;
# the tests install it as well.
# make agents: Codex, Claude Code and Kimi Code, pinned, into .agents/ (ARGS="codex": only that one). make test-agents: the
# tests that drive them, against a model of the tests' own.
# Each sets up first what is missing.
.PHONY: demo test setup extras agents test-agents
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
	-r requirements-gym.txt -r requirements-ray.txt -r requirements-mcp.txt

agents:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" $(MAKE) --no-print-directory agents && \
	exec python -m enpire_agent.install_agents $(ARGS)

test-agents:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" $(MAKE) --no-print-directory test-agents && \
	python -m enpire_agent.install_agents && exec python -m pytest -m agents tests/agents $(ARGS)

setup:
	@source enpire_bringup/setup/environment.bash "$(CURDIR)" true
