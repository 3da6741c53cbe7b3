# What one can do with this repository. demo and test do all their own set-up.
SLICE ?=
KEEP ?=
ARGS ?=
PYTEST := .venv/bin/python -m pytest --numprocesses=2 --dist=loadgroup

.PHONY: help setup setup-browser setup-rollout demo test test-all check bench package bare-root-test rollout-test clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf 'make %-15s %s\n' "$$name" "$$text"; done

setup: ## system packages, the guest kernel and .venv; about a minute the first time, nothing afterwards
	@scripts/setup.sh

setup-browser: setup ## a browser besides, for the tests of the page
	@scripts/setup.sh browser

demo: setup ## three hosts, a drain, a power cut and the recovery, on this machine (KEEP=1 leaves it up)
	@KEEP=$(KEEP) .venv/bin/python -m lab.demo

test: setup ## the tests of every promise, within ten minutes (ARGS="-k word" for some of them)
	@$(PYTEST) -m "not slow and not browser" $(ARGS)

test-all: setup-browser ## every test, within an hour (SLICE=2/4 for the second quarter)
	@$(PYTEST) $(if $(SLICE),--slice=$(SLICE)) $(ARGS)

check: setup ## format, lint, types, import contracts, sizes
	@scripts/check.sh

bench: setup ## each benchmark once, at a modest size (ONLY=name for one)
	@scripts/bench.sh

bare-root-test: ## the README's commands on a fresh Debian, in a container that is thrown away
	@scripts/bare_root.sh $(ARGS)

package: setup ## wheel, sdist, bill of materials and wheelhouse, in dist/ (ARGS="3.11 3.13" for several Pythons)
	@scripts/package.sh $(ARGS)

setup-rollout: setup ## what the roll-out test needs besides: mmdebstrap, systemd-nspawn, Ansible
	@scripts/setup.sh rollout

rollout-test: setup-rollout ## the Ansible roles on real booted machines, from nothing to a fleet and away again
	@.venv/bin/python -m tests.rollout.story

clean: ## remove .venv and all that tools left behind here; not the system packages
	@rm -rf .venv .tools .ansible-venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
