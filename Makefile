# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv/bin
DEMO := runs/demo

.PHONY: demo test test-slow stress evidence models model-scores clean

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

# The comparisons of encoders and the ablations of docs/results.md and docs/recipe.md, from DRIVE, IDRiD and eyepacs_770 in DATA. What is done is not done again.
DATA ?= Dataset
JOBS ?= 2
EVIDENCE := runs/evidence
ENCODERS := paper release steady global local
OPTIONS_release := --recipe release
OPTIONS_steady := --recipe steady
OPTIONS_global := --weights 1 0 0.8 0.2
OPTIONS_local := --weights 0 1 0.8 0.2
named = random $(foreach name,$(1),$(name)=$(EVIDENCE)/$(name)/encoder.pth)
COMPARE := $(VENV)/python DownStream/compare.py --jobs $(JOBS)
PARTS := $(COMPARE) --encoders random --fractions 1
OPTIMISATION := --batch-size 4 --lr 0.003 --schedule cosine

# The number of threads decides the last digits of sums, and with them the figures.
evidence: export OMP_NUM_THREADS := 1
evidence: .venv/ready
	$(MAKE) --jobs=$(JOBS) $(ENCODERS:%=pretrained-%)
	$(COMPARE) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/linear --encoders $(call named,$(ENCODERS)) \
		--recipes linear --epochs 100
	$(COMPARE) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/compact --encoders $(call named,paper global) \
		--modes frozen finetuned --fractions 0.05 0.25 --epochs 60
	$(COMPARE) --dataset idrid --data-dir $(DATA)/IDRiD --out $(EVIDENCE)/disc \
		--encoders $(call named,paper steady global) --recipes linear --fractions 0.25 --epochs 10 \
		-- --target OD --size 256
	$(COMPARE) --dataset idrid --data-dir $(DATA)/IDRiD --out $(EVIDENCE)/disc-compact \
		--encoders $(call named,paper global) --fractions 0.25 --epochs 20 -- --target OD --size 256
	$(COMPARE) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/release-decoder --encoders $(call named,paper steady) \
		--recipes release --fractions 0.25 --epochs 60 -- --crop 128 $(OPTIMISATION)
	$(COMPARE) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/long --encoders $(call named,paper) \
		--fractions 0.25 --epochs 500
	$(PARTS) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/parts --epochs 150 \
		--recipes compact compact-without-contrast compact-without-detail compact-without-standardise \
		compact-without-jitter compact-without-dice release -- --crop 128 $(OPTIMISATION)
	$(PARTS) --dataset idrid --data-dir $(DATA)/IDRiD --out $(EVIDENCE)/parts-exudates --epochs 30 --folds 5 \
		--recipes compact compact-without-dice release \
		-- --target EX --fov crop --size 1024 --crop 256 $(OPTIMISATION)
	$(PARTS) --dataset idrid --data-dir $(DATA)/IDRiD --out $(EVIDENCE)/parts-disc --epochs 20 \
		--recipes compact compact-without-dice release \
		-- --target OD --size 256 $(OPTIMISATION)
	$(PARTS) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/constant --epochs 150 \
		-- --schedule constant
	$(PARTS) --data-dir $(DATA)/DRIVE --out $(EVIDENCE)/whole --epochs 7 \
		-- --crop 0 --batch-size 1

pretrained-%: .venv/ready
	$(VENV)/python DualScaleNet/main.py --data $(DATA)/eyepacs_770 --image-size 96 --batch-size 32 --epochs 20 \
		--schedule cosine $(OPTIONS_$*) --run-dir $(EVIDENCE)/$*

# The ready models in models/, and the scores on their cards: of three held-out folds, and of each vessel set left out.
MODELS := vessels disc-cup lesions
OPTIONS_vessels := --epochs 160
DATA_vessels := --dataset drive stare chase-db1 --data-dir $(DATA)/DRIVE $(DATA)/STARE $(DATA)/CHASE_DB1
OPTIONS_localiser := --target disc --size 128 --epochs 48
OPTIONS_disc-cup = --target disc cup --roi disc --size 128 --epochs 100 --localiser $(RUNS)/localiser$(FOLD)/last.pth
DATA_disc-cup := --dataset drishti-gs idrid --data-dir $(DATA)/Drishti-GS1_files $(DATA)/IDRiD
DATA_localiser := $(DATA_disc-cup)
OPTIONS_lesions := --target MA HE EX SE --size 512 --crop 128 --epochs 180
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
TRAIN_MODEL := $(VENV)/python DownStream/train.py --encoder models/encoder.pth --val-fraction 0
PREDICT := $(VENV)/python DownStream/predict.py

models model-scores: export OMP_NUM_THREADS := 1
models: .venv/ready
	$(VENV)/python models/make.py encoder
	$(MAKE) --jobs=$(JOBS) $(MODELS:%=model-%)

model-%: train-%
	$(VENV)/python models/make.py decoder $(RUNS)/$*/last.pth

model-scores: .venv/ready
	$(MAKE) --jobs=$(JOBS) $(foreach fold,$(FOLDS),$(MODELS:%=train-%$(fold))) $(LEFT_OUT:%=without-%)
	for model in $(MODELS); do $(PREDICT) --checkpoint $(RUNS)/$$model.?/last.pth || exit 1; done

# train-vessels trains on all photographs, train-vessels.0 holds out the first fold.
train-%: FOLD = $(suffix $*)
train-%:
	$(TRAIN_MODEL) $(DATA_$(basename $*)) $(OPTIONS_$(basename $*)) \
		$(if $(FOLD),--folds $(words $(FOLDS)) --fold $(FOLD:.%=%)) --run-dir $(RUNS)/$*

train-disc-cup: train-localiser
$(FOLDS:%=train-disc-cup%): train-disc-cup%: train-localiser%

without-%:
	$(TRAIN_MODEL) $(WITHOUT_$*) $(OPTIONS_vessels) --run-dir $(RUNS)/without-$*
	$(PREDICT) --checkpoint $(RUNS)/without-$*/last.pth --dataset $(NAME_$*) --data-dir $(DATA)/$* --split train

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
