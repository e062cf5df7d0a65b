"""
The loader bench's peers from Python, over the same Arrow file: each ends with an owned dense float32 batch, every byte written.

Usage: peers.py FILE COLUMN BATCH_ROWS RUNS PEER…; one JSON line a peer: samples per second (median) and CPU seconds per million samples.
"""
import json
import os
import shutil
import statistics
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa

FILE, COLUMN, BATCH, RUNS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
SLOW_ROWS = 60_000  # for peers that take a row at a time

source = pa.memory_map(FILE)
table = pa.ipc.open_file(source).read_all().select([COLUMN])
width = table.schema.field(COLUMN).type.list_size
rows = table.num_rows


def dense(column):
    """A batch's column as an owned array."""
    chunks = [np.asarray(c.flatten()).reshape(-1, width) for c in column.chunks]
    return np.concatenate(chunks) if len(chunks) > 1 else np.array(chunks[0], copy=True)


def measure(name, version, epoch, limit=None):
    """`epoch` yields batches; at most `limit` samples are taken of it."""
    rates, costs = [], []
    for run in range(RUNS + 1):
        seen, begun, cpu = 0, time.perf_counter(), time.process_time()
        for batch in epoch():
            assert len(batch) <= BATCH
            seen += len(batch)
            if limit is not None and seen >= limit:
                break
        wall = time.perf_counter() - begun
        if run > 0:  # the first one warms up
            rates.append(seen / wall)
            costs.append((time.process_time() - cpu) / seen * 1e6)
    print(json.dumps({"name": f"{name} {version}", "rate": statistics.median(rates), "cpu": statistics.median(costs)}), flush=True)


def hugging_face():
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset(table).with_format("arrow")
    shuffled = datasets.Dataset(table).shuffle(seed=7).with_format("arrow")
    version = datasets.__version__
    by_numpy, lists = datasets.Dataset(table).with_format("numpy"), datasets.Dataset(table)
    measure("HF datasets, Arrow + copy", version, lambda: (dense(t[COLUMN]) for t in data.iter(BATCH)))
    measure("HF datasets, shuffled", version, lambda: (dense(t[COLUMN]) for t in shuffled.iter(BATCH)), SLOW_ROWS)
    measure("HF datasets, numpy format", version, lambda: (np.array(b[COLUMN], np.float32) for b in by_numpy.iter(BATCH)), SLOW_ROWS)
    measure("HF datasets, default (Python lists)", version, lambda: (np.array(b[COLUMN], np.float32) for b in lists.iter(BATCH)), SLOW_ROWS // 4)


def torch_loaders():
    import torch
    from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

    memory = dense(table[COLUMN])

    class Rows(Dataset):
        def __len__(self):
            return len(memory)

        def __getitem__(self, at):
            return memory[at]

    version = torch.__version__
    plain = DataLoader(Rows(), batch_size=BATCH, shuffle=True)
    batched = DataLoader(Rows(), batch_size=None, sampler=BatchSampler(RandomSampler(memory), BATCH, False))
    measure("torch DataLoader, default, shuffled", version, lambda: plain, SLOW_ROWS)
    measure("torch in-memory BatchSampler", version, lambda: batched)


def mosaic():
    import streaming
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    folder = tempfile.mkdtemp()
    memory = dense(table[COLUMN])[:SLOW_ROWS]
    with MDSWriter(out=folder, columns={"x": f"ndarray:float32:{width}"}) as out:
        for row in memory:
            out.write({"x": row})
    data = StreamingDataset(local=folder, shuffle=True, batch_size=BATCH)
    loader = DataLoader(data, batch_size=BATCH)
    measure("MosaicML streaming", streaming.__version__, lambda: (b["x"] for b in loader))
    shutil.rmtree(folder)


PEERS = {"hugging_face": hugging_face, "torch_loaders": torch_loaders, "mosaic": mosaic}
for name in sys.argv[5:]:
    PEERS[name]()
sys.stdout.flush()
os._exit(0)  # streaming leaves threads
