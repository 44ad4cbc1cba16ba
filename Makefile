# Everything here needs Python 3.11 (or 3.12) and make; `setup` installs the rest into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
PEERS := .venv-peers/.installed
TORCHVISION := .venv-torchvision/.installed
OUT := demo-output
ZOO := models/zoo/motion
DEVICE := cpu
PRECISION := fp32

.PHONY: help setup demo app test check format bench bench-peers agree-torchvision zoo clean
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(INSTALLED) ## create .venv with everything that the other targets need

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,openvino,serve,train,demo,dev]'
	@touch $@

# Rendered once: 8 clips of each class, made from a seed, as real video files.
$(OUT)/clips/manifest.csv: | $(INSTALLED)
	@echo '== Render a small labelled test set'
	$(BIN)/hardroute render motion:train=0,val=0,test=8 --out $(OUT)/clips

demo: $(OUT)/clips/manifest.csv ## render clips, classify some, audit the shipped bundle
	@echo; echo '== Classify one clip of each class, with a routing-log line each'
	$(BIN)/hardroute predict motion $(OUT)/clips/test/*-00000.avi --log $(OUT)/routes.jsonl
	@echo; echo '== Audit: may this bundle be served?'
	@status=0; $(BIN)/hardroute audit motion --data $(OUT)/clips --policy quick --out $(OUT)/audit || status=$$?; \
	case $$status in \
	  0) echo; echo 'Verdict: PASSED. The bundle meets the quick policy on these clips.';; \
	  1) echo; echo 'Verdict: REFUSED. The report says which threshold was missed.';; \
	  *) exit $$status;; \
	esac; \
	echo '  routing log   $(OUT)/routes.jsonl'; \
	echo '  audit report  $(OUT)/audit/'; \
	echo '  try it        $(BIN)/hardroute page      (then open the address it prints)'; \
	exit $$status

app: $(INSTALLED) ## start the page on http://127.0.0.1:7860
	$(BIN)/hardroute page

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest

check: $(INSTALLED) ## lint, formatting, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## reformat and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## speed as ratios measured in one run, as a table and as JSON
	$(BIN)/python -m tests.measure.bench $(ZOO)

$(PEERS): pyproject.toml constraints.txt tests/measure/peers/constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -c tests/measure/peers/constraints.txt -e '.[cpu,train]' foolbox adversarial-robustness-toolbox
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c tests/measure/peers/constraints.txt --no-deps torchattacks
	@touch $@

bench-peers: $(PEERS) ## PGD-10 next to torchattacks, foolbox and ART, in an environment of its own
	.venv-peers/bin/python -m tests.measure.peers speed $(ZOO)

$(TORCHVISION): pyproject.toml constraints.txt tests/measure/peers/constraints.txt
	$(PYTHON) -m venv .venv-torchvision
	.venv-torchvision/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train]'
	.venv-torchvision/bin/python -m pip install --quiet --disable-pip-version-check -c tests/measure/peers/constraints.txt \
	  --no-deps torchvision
	@touch $@

agree-torchvision: $(TORCHVISION) ## torchvision's 3D networks next to ours with the same weights, in an environment of its own
	.venv-torchvision/bin/python -m tests.measure.peers.published

zoo: $(INSTALLED) ## train the shipped bundle anew (hours on two cores, less than one with PRECISION=bf16, minutes with DEVICE=cuda; resumes)
	$(BIN)/hardroute fit --data motion --method j-tlat --expert r3d18 --width 16 --blocks 1,1,1,0 --size 32 \
	  --epochs 54 --batch 64 --ramp 0.3 --shared-start 0.85 --norm kept --lam 1e-4 --router-lam 6000 --precision $(PRECISION) \
	  --validate-every 4 --validate-clips 200 --device $(DEVICE) --out runs/zoo-motion --resume
	rm -rf $(ZOO)
	$(BIN)/hardroute export runs/zoo-motion --out $(ZOO) --single

clean: ## remove what demo and test wrote (not .venv)
	rm -rf $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
