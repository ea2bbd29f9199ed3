# The tables and the plot of docs/results.md, from a folder DATA with DRIVE, STARE, CHASE_DB1, IDRiD, Drishti-GS1_files, eyepacs_770 and
# idrid_grading_516. What is done is not done again; a stopped training is resumed.
#
#     make evidence-quick    the data sets, with short trainings
#     make evidence          all tables, part by part: `make evidence-sets` and so on
#     make evidence-recipe   the ablations of docs/recipe.md, with ImageNet's encoder

EVIDENCE := runs/evidence
COMPARE := $(VENV)/python DownStream/compare.py --jobs $(JOBS)
SCORES := $(VENV)/python docs/scores.py

PARTS := sets cameras sizes init pretraining encoders
.PHONY: evidence evidence-quick evidence-recipe $(PARTS:%=evidence-%)

# The number of threads decides the last digits of sums, and with them the figures.
evidence evidence-quick evidence-recipe $(PARTS:%=evidence-%) pretrain-%: export OMP_NUM_THREADS := 1

evidence:
	for part in $(PARTS); do $(MAKE) evidence-$$part || exit 1; done

# Each data set, on folds of its training list.
OPTIONS_drive := --dataset drive --data-dir $(DATA)/DRIVE --folds 4
OPTIONS_stare := --dataset stare --data-dir $(DATA)/STARE --folds 5
OPTIONS_drive-quick := $(OPTIONS_drive) --epochs 150
OPTIONS_stare-quick := $(OPTIONS_stare) --epochs 250
OPTIONS_disc-quick := $(DATA_localiser) --target disc --folds 3 --epochs 16
OPTIONS_lesions-quick := $(DATA_lesions) $(OPTIONS_lesions) --folds 3 --epochs 60
QUICK := stare drive lesions disc

evidence-quick:
	$(MAKE) --jobs=$(JOBS) $(QUICK:%=$(EVIDENCE)/%-quick/scores.md)
	$(SCORES) $(QUICK:%=$(EVIDENCE)/%-quick)

evidence-sets: model-scores
	$(MAKE) --jobs=$(JOBS) $(EVIDENCE)/drive/scores.md $(EVIDENCE)/stare/scores.md
	$(VENV)/python benchmarks/widths.py --checkpoint $(EVIDENCE)/drive/fold0/last.pth
	$(SCORES) $(EVIDENCE)/drive $(EVIDENCE)/stare $(MODELS:%=$(RUNS)/%.0)

$(EVIDENCE)/%/scores.md: .venv/ready
	$(TRAIN) $(OPTIONS_$*) --fold all --run-dir $(@D)
	$(PREDICT) --checkpoint $(@D)/fold?/last.pth --out $(@D)/predictions
	$(SCORES) $(@D) > $@

# Vessels of a set that the network has not seen, with .5 and with a threshold without labels.
evidence-cameras: $(LEFT_OUT:%=without-%) $(LEFT_OUT:%=share-%)
	$(SCORES) $(LEFT_OUT:%=$(RUNS)/without-%)

share-%: without-%
	$(PREDICT) --checkpoint $(RUNS)/without-$*/last.pth --dataset $(NAME_$*) --data-dir $(DATA)/$* --split train \
		--threshold share --out $(RUNS)/without-$*/share

# DRIVE's first fold at other sizes, and its network on other cameras, each resized to the diameter of training and not.
SIZES := 0.5 1 2 3
SIZED := $(PREDICT) --checkpoint $(EVIDENCE)/drive/fold0/last.pth
evidence-sizes: $(EVIDENCE)/drive/scores.md
	for factor in $(SIZES); do $(VENV)/python docs/resized.py --checkpoint $(EVIDENCE)/drive/fold0/last.pth \
		--factor $$factor --out $(EVIDENCE)/sizes/$$factor/data || exit 1; \
		for scale in auto native; do $(SIZED) --dataset generic --data-dir $(EVIDENCE)/sizes/$$factor/data --split train \
			--scale $$scale --out $(EVIDENCE)/sizes/$$factor/$$scale || exit 1; done; done
	for scale in auto native; do $(foreach set,STARE CHASE_DB1,$(SIZED) --dataset $(NAME_$(set)) \
		--data-dir $(DATA)/$(set) --split train --scale $$scale --out $(EVIDENCE)/sizes/$(set)/$$scale || exit 1;) done
	$(SCORES) $(EVIDENCE)/sizes/*

# From DRIVE to CHASE_DB1 with the photographs of no child, of one (both eyes) and of two.
LABELS := 0.07 0.28
INIT := --dataset chase-db1 --data-dir $(DATA)/CHASE_DB1 --folds 3 --val-fraction 0 --epochs 300
evidence-init: $(EVIDENCE)/drive/scores.md
	for labels in $(LABELS); do \
		$(VENV)/python DownStream/train.py $(INIT) --label-fraction $$labels --init $(EVIDENCE)/drive/fold0/last.pth \
			--run-dir $(EVIDENCE)/init/$$labels || exit 1; \
		$(VENV)/python DownStream/train.py $(INIT) --label-fraction $$labels --encoder imagenet \
			--run-dir $(EVIDENCE)/init/$$labels-scratch || exit 1; \
		$(PREDICT) --checkpoint $(EVIDENCE)/init/$$labels/last.pth || exit 1; \
		$(PREDICT) --checkpoint $(EVIDENCE)/init/$$labels-scratch/last.pth || exit 1; done
	$(VENV)/python docs/resized.py --checkpoint $(EVIDENCE)/init/$(firstword $(LABELS))/last.pth --factor 1 --out $(EVIDENCE)/init/0/data
	$(SIZED) --dataset generic --data-dir $(EVIDENCE)/init/0/data --split train --out $(EVIDENCE)/init/0/predictions
	$(SCORES) $(EVIDENCE)/init

# What longer pretraining is worth: the encoders of two runs after so many epochs.
SNAPSHOTS := 5 20
RECIPES := paper steady
GRADED := $(DATA)/idrid_grading_516
PRETRAINING := $(EVIDENCE)/pretraining
ON_DRIVE := $(COMPARE) --data-dir $(DATA)/DRIVE
ON_IDRID := $(COMPARE) --dataset idrid --data-dir $(DATA)/IDRiD
OPTIMISATION := --batch-size 4 --lr 0.003 --schedule cosine
snapshot = $(EVIDENCE)/pretrain-$(1)/encoder-$(shell printf %04d $(2)).pth
SNAPSHOT_FILES := $(foreach recipe,$(RECIPES),$(foreach n,$(SNAPSHOTS),$(recipe)-$(n)=$(call snapshot,$(recipe),$(n))))
PROBED := --encoders random $(SNAPSHOT_FILES) imagenet --fractions 0.25

evidence-pretraining: .venv/test-ready $(RECIPES:%=pretrain-%)
	$(ON_DRIVE) --out $(PRETRAINING)/vessels $(PROBED) --recipes linear --epochs 100
	$(ON_IDRID) --out $(PRETRAINING)/disc $(PROBED) --recipes linear --epochs 10 -- --target OD --size 256
	$(ON_IDRID) --out $(PRETRAINING)/exudates $(PROBED) --recipes linear --epochs 15 -- --target EX --size 512 --crop 128
	$(ON_DRIVE) --out $(PRETRAINING)/vessels-release $(PROBED) --recipes release --epochs 60 -- --crop 128 $(OPTIMISATION)
	for file in random=$(call snapshot,paper,0) imagenet=models/encoder.pth $(SNAPSHOT_FILES); do \
		$(VENV)/python DownStream/features.py --encoder $${file#*=} --size 128 --batch-norm reestimate \
			--images $(GRADED) --out $(PRETRAINING)/features/$${file%%=*}.npz || exit 1; done
	$(VENV)/python docs/pretraining.py $(PRETRAINING) --grades $(GRADED)/grades_train.csv

pretrain-%: .venv/ready
	$(VENV)/python DualScaleNet/main.py --data $(DATA)/eyepacs_770 $(GRADED) --image-size 128 --batch-size 32 \
		--epochs $(lastword $(SNAPSHOTS)) --recipe $* --precision float32 --snapshot-every 0 $(SNAPSHOTS) \
		--run-dir $(EVIDENCE)/pretrain-$*

# Which encoder, with the default decoder: on the camera of training and on others, with one labelled photograph, four and all.
LAST := $(lastword $(SNAPSHOTS))
ENCODERS := random $(foreach recipe,$(RECIPES),$(recipe)=$(call snapshot,$(recipe),$(LAST))) imagenet
evidence-encoders: $(RECIPES:%=pretrain-%)
	$(ON_DRIVE) --out $(EVIDENCE)/encoders --encoders $(ENCODERS) --fractions 0.05 0.25 1 --epochs 75 \
		--also-on stare=$(DATA)/STARE chase-db1=$(DATA)/CHASE_DB1
	$(ON_IDRID) --out $(EVIDENCE)/encoders-haemorrhages --encoders $(ENCODERS) --fractions 1 --epochs 30 \
		-- --target HE --size 512 --crop 128

# What each part of the recipe compact is worth.
ABLATION := --encoders imagenet --fractions 1
evidence-recipe: .venv/ready
	$(ON_DRIVE) $(ABLATION) --out $(EVIDENCE)/parts --epochs 150 \
		--recipes compact compact-without-contrast compact-without-detail compact-without-standardise \
		compact-without-jitter compact-without-dice release -- --crop 128 $(OPTIMISATION)
	$(ON_IDRID) $(ABLATION) --out $(EVIDENCE)/parts-exudates --epochs 30 --folds 5 \
		--recipes compact compact-without-dice release \
		-- --target EX --fov crop --size 1024 --crop 256 $(OPTIMISATION)
	$(ON_IDRID) $(ABLATION) --out $(EVIDENCE)/parts-disc --epochs 20 \
		--recipes compact compact-without-dice release -- --target OD --size 256 $(OPTIMISATION)
	$(ON_DRIVE) $(ABLATION) --out $(EVIDENCE)/constant --epochs 150 -- --schedule constant
	$(ON_DRIVE) $(ABLATION) --out $(EVIDENCE)/whole --epochs 7 -- --crop 0 --batch-size 1
