"""
The image bench's peers from Python: torch with Pillow over JPEG files of one size, to dense float32 batches [rows, height, width, 3].

Usage: peers_images.py FOLDER BATCH_ROWS RUNS; one JSON line a peer: images per second (median) and CPU microseconds an image.
"""
import glob
import io
import json
import os
import resource
import statistics
import sys
import time

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

FOLDER, BATCH, RUNS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
encoded = [open(file, "rb").read() for file in sorted(glob.glob(os.path.join(FOLDER, "*.jpg")))]


class Pictures(Dataset):
    def __len__(self):
        return len(encoded)

    def __getitem__(self, at):
        return np.asarray(Image.open(io.BytesIO(encoded[at])).convert("RGB"), dtype=np.float32)


def cpu_seconds():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(name, loader):
    rates, costs = [], []
    for run in range(RUNS + 1):
        begun, cpu, seen = time.perf_counter(), cpu_seconds(), 0
        for batch in loader:
            assert batch.dtype == torch.float32
            seen += len(batch)
        wall = time.perf_counter() - begun
        if run > 0:  # the first one warms up
            rates.append(seen / wall)
            costs.append((cpu_seconds() - cpu) / seen * 1e6)
    name = f"{name}, torch {torch.__version__}, Pillow {PIL.__version__}"
    print(json.dumps({"name": name, "rate": statistics.median(rates), "cpu": statistics.median(costs)}), flush=True)


data = Pictures()
measure("torch DataLoader, default", DataLoader(data, batch_size=BATCH, shuffle=True))
measure("torch DataLoader, 2 workers", DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=2))
