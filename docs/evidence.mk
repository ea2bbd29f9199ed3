# The tables of docs/results.md and docs/recipe.md, from a folder DATA with DRIVE, STARE, CHASE_DB1, IDRiD, Drishti-GS1_files,
# eyepacs_770 and idrid_grading_516. What is done is not done again.
#
#     make evidence-quick   the sets with short trainings: an hour on 2 cores
#     make evidence         all tables: see docs/results.md for the hours

EVIDENCE := runs/evidence
COMPARE := $(VENV)/python DownStream/compare.py --jobs $(JOBS)
SCORES := $(VENV)/python docs/scores.py
TRAIN := $(VENV)/python DownStream/train.py --encoder random --val-fraction 0

.PHONY: evidence-quick evidence evidence-sets evidence-cameras evidence-encoders evidence-pretraining evidence-recipe

# The number of threads decides the last digits of sums, and with them the figures.
evidence evidence-%: export OMP_NUM_THREADS := 1

evidence: evidence-sets evidence-cameras evidence-encoders evidence-pretraining evidence-recipe

# Each set on folds of its training list.
OPTIONS_drive := --dataset drive --data-dir $(DATA)/DRIVE --folds 4
OPTIONS_stare := --dataset stare --data-dir $(DATA)/STARE --folds 5
OPTIONS_drive-quick := $(OPTIONS_drive) --epochs 150
OPTIONS_stare-quick := $(OPTIONS_stare) --epochs 250
OPTIONS_disc-quick := $(DATA_localiser) --target disc --size 128 --folds 3 --epochs 16
OPTIONS_lesions-quick := $(DATA_lesions) --target MA HE EX SE --size 512 --crop 128 --folds 3 --epochs 60
QUICK := lesions drive disc stare

evidence-quick:
	$(MAKE) --jobs=$(JOBS) $(QUICK:%=$(EVIDENCE)/%-quick/scores.md)
	$(SCORES) $(QUICK:%=$(EVIDENCE)/%-quick)

evidence-sets: model-scores
	$(MAKE) --jobs=$(JOBS) $(EVIDENCE)/drive/scores.md $(EVIDENCE)/stare/scores.md
	$(SCORES) $(EVIDENCE)/drive $(EVIDENCE)/stare $(RUNS)

$(EVIDENCE)/%/scores.md: .venv/ready
	$(TRAIN) $(OPTIONS_$*) --fold all --run-dir $(@D)
	$(PREDICT) --checkpoint $(@D)/fold?/last.pth --out $(@D)/predictions
	$(SCORES) $(@D) > $@

# Networks on sets that they have not seen, and on photographs of other sizes.
CAMERAS := $(LEFT_OUT:%=without-%)

# Encoders, with a linear probe and with decoders.
ENCODERS := paper release steady global local
OPTIONS_release := --recipe release
OPTIONS_steady := --recipe steady
OPTIONS_global := --weights 1 0 0.8 0.2
OPTIONS_local := --weights 0 1 0.8 0.2
named = random $(foreach name,$(1),$(name)=$(EVIDENCE)/$(name)/encoder.pth)
