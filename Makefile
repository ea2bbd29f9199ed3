# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv/bin
DEMO := runs/demo

.PHONY: demo test stress clean

demo: .venv/ready
	rm -rf $(DEMO)
	$(VENV)/python Dataset/synthetic.py --out $(DEMO)/data --train 16 --test 4
	$(VENV)/python DualScaleNet/main.py --data $(DEMO)/data/ddr_757 --image-size 96 --batch-size 8 --epochs 3 \
		--run-dir $(DEMO)/pretrain --cache $(DEMO)/cache
	$(VENV)/python DownStream/train.py --data-dir $(DEMO)/data/DRIVE --encoder $(DEMO)/pretrain/encoder.pth \
		--epochs 60 --val-every 20 --run-dir $(DEMO)/segment
	$(VENV)/python DownStream/predict.py --checkpoint $(DEMO)/segment/best.pth
	@echo; echo "overlay (green true, blue missed, red false): $(DEMO)/segment/predictions-test/overlay/01_test.png"

test: .venv/test-ready
	$(VENV)/ruff check .
	$(VENV)/python -m pytest

# The long form of tests/test_faults.py: kills, mutated files, full disks, senseless options.
stress: .venv/test-ready
	$(VENV)/python tests/faults.py

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
