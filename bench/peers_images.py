"""
The image bench's peers from Python: JPEG files of one size to dense float32 batches [rows, height, width, 3], shuffled, every byte written.

Usage: peers_images.py FOLDER BATCH_ROWS RUNS PEER…; one JSON line a peer: images per second (median) and CPU microseconds an image.
"""
import glob
import io
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time

import numpy as np
import PIL
from PIL import Image

FOLDER, BATCH, RUNS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
files = sorted(glob.glob(os.path.join(FOLDER, "*.jpg")))
encoded = [open(file, "rb").read() for file in files]


def cpu_seconds():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(name, version, epoch):
    rates, costs = [], []
    for run in range(RUNS + 1):
        begun, cpu, seen = time.perf_counter(), cpu_seconds(), 0
        for batch in epoch():
            assert str(batch.dtype).endswith("float32") and batch.shape[3] == 3 and len(batch) <= BATCH
            seen += len(batch)
        wall = time.perf_counter() - begun
        assert seen == len(files)
        if run > 0:  # the first one warms up
            rates.append(seen / wall)
            costs.append((cpu_seconds() - cpu) / seen * 1e6)
    name = f"{name}, {version}, Pillow {PIL.__version__}"
    print(json.dumps({"name": name, "rate": statistics.median(rates), "cpu": statistics.median(costs)}), flush=True)


def decoded(image):
    return np.asarray(image.convert("RGB"), dtype=np.float32)


def torch_loaders():
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Pictures(Dataset):
        def __len__(self):
            return len(encoded)

        def __getitem__(self, at):
            return decoded(Image.open(io.BytesIO(encoded[at])))

    version = f"torch {torch.__version__}"
    plain = DataLoader(Pictures(), batch_size=BATCH, shuffle=True)
    workers = DataLoader(Pictures(), batch_size=BATCH, shuffle=True, num_workers=2)
    kept = DataLoader(Pictures(), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    measure("torch DataLoader, default", version, lambda: plain)
    measure("torch DataLoader, 2 workers", version, lambda: workers)
    # Workers that stay are no children that were waited for: only the rate tells.
    measure("torch DataLoader, 2 persistent workers (CPU: of this process only)", version, lambda: kept)


def hugging_face():
    import datasets

    datasets.disable_progress_bars()
    table = {"image": [{"bytes": data, "path": None} for data in encoded]}
    data = datasets.Dataset.from_dict(table, features=datasets.Features({"image": datasets.Image()}))
    version = f"datasets {datasets.__version__}"
    seeds = iter(range(10_000))

    def default():
        for batch in data.shuffle(seed=next(seeds)).iter(BATCH):
            yield np.stack([decoded(image) for image in batch["image"]])

    def by_numpy():
        for batch in data.shuffle(seed=next(seeds)).with_format("numpy").iter(BATCH):
            yield batch["image"].astype(np.float32)

    measure("HF datasets, default (Pillow images)", version, default)
    measure("HF datasets, numpy format", version, by_numpy)


def mosaic():
    import streaming
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    class Pictures(StreamingDataset):
        def __getitem__(self, at):
            return decoded(super().__getitem__(at)["x"])

    folder = tempfile.mkdtemp()
    with MDSWriter(out=folder, columns={"x": "jpeg"}) as out:
        for file in files:
            out.write({"x": Image.open(file)})  # of a file that is open it takes the bytes as they are
    data = Pictures(local=folder, shuffle=True, batch_size=BATCH)
    loader = DataLoader(data, batch_size=BATCH)
    measure("MosaicML streaming, jpeg", f"streaming {streaming.__version__}", lambda: loader)
    shutil.rmtree(folder)


PEERS = {"hugging_face": hugging_face, "torch_loaders": torch_loaders, "mosaic": mosaic}
for name in sys.argv[4:]:
    PEERS[name]()
sys.stdout.flush()
os._exit(0)  # streaming leaves threads
