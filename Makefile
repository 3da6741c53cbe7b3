setup:
	@scripts/setup.sh
.PHONY: setup
