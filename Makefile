# What a person types. `make up` and `make test` set up all they need.
.PHONY: up demo setup deb dist docs test lint unit integration browser bench profile fuzz coverage clean

up: setup            ## set everything up and run bridge, host and page; prints the page's link
	@exec .venv/bin/uaihost up

demo: setup          ## play the tour without a person; fails if any step is not seen
	@exec .venv/bin/uaihost demo

setup:               ## .venv with everything
	@scripts/setup

test: setup          ## every test
	@.venv/bin/python scripts/test lint unit integration browser

lint unit integration browser: setup
	@.venv/bin/python scripts/test $@

# REFERENCE=DIR adds the reference host; BENCH holds more options, as in BENCH="--only upload --rounds 1".
bench: setup         ## the tunnel's figures; see benchmarks/README.md
	@.venv/bin/python -m benchmarks $(if $(REFERENCE),--reference $(REFERENCE)) $(BENCH)

profile: setup       ## where the host's time goes; see benchmarks/README.md
	@.venv/bin/python -m benchmarks.profiling $(PROFILE)

# FUZZ holds options, as in FUZZ="--inputs 10000 --seed 7".
fuzz: setup          ## a million broken inputs to whatever reads bytes of others
	@.venv/bin/python -m uaihost.test.fuzz $(FUZZ)

coverage: setup      ## lines and branches that the unit tests reach
	@.venv/bin/python -m coverage run -m twisted.trial --temp-directory .cache/trial-coverage $$(.venv/bin/python scripts/test --list unit) && .venv/bin/python -m coverage report

docs: setup          ## the site of the documents into dist/site; open dist/site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

deb:                 ## the Debian package into dist/, built twice, compared and held against lintian
	@scripts/deb --lint --check

dist: setup          ## the source distribution and the wheel into dist/
	@scripts/dist

clean:               ## everything that `make` made here
	rm -rf .venv .cache .mypy_cache .ruff_cache .hypothesis _trial_temp* build dist artifacts *.egg-info
