#!/usr/bin/env python3
"""Judges histories that `npm run sim -- --history FILE` wrote: is each dataset's linearizable?

Written from docs/simulation.md alone, in another language and by another search than test/sim/linearizability.ts, so that a
mistake in one of them shows. Exit code: 0 all are, 1 one is not, 2 the search gave up (which is no success).

    python3 test/sim/check_history.py FILE
"""
import json
import sys

STATES_MAX = 2_000_000
KEYS = {"process", "callMs", "returnMs", "op", "input", "output"}
NEVER = float("inf")


def ok(output, version, root=None):
    """An answer that nobody got could have been any."""
    if output is None:
        return True
    return output["kind"] == "ok" and output["version"] == version and (root is None or output["root"] == root)


def refused(output, version):
    return output is None or (output["kind"] == "refused" and output["version"] == version)


def put(pairs, key, value):
    return tuple(sorted({**dict(pairs), key: value}.items()))


def step(state, op, given, output):
    """The states (none or one) to which `op` leads if it can have answered `output`. A state is (version, root, tags, pins)."""
    version, root, tags, pins = state
    if op == "head":
        return [state] if ok(output, version, root) else []
    if op == "tag":
        return [state] if ok(output, dict(tags).get(given["tag"], 0)) else []
    if op == "commit":
        if version > 0 and root == given["root"]:
            return [state] if ok(output, version, root) else []
        if (given["expected"] or 0) != version:
            return [state] if refused(output, version) else []
        after = (version + 1, given["root"], tags, pins)
        return [after] if ok(output, version + 1, given["root"]) else []
    if op == "move":
        now = dict(tags).get(given["tag"], 0)
        if given["version"] > version:
            return []
        if (given["expected"] or 0) != now:
            return [state] if refused(output, now) else []
        after = (version, root, put(tags, given["tag"], given["version"]), pins)
        return [after] if ok(output, given["version"]) else []
    pinned = dict(pins).get(given["run"])
    if op == "pin":
        if given["version"] > version:
            return []
        if pinned is not None and abs(pinned) != given["version"]:
            return [state] if refused(output, abs(pinned)) else []
        after = (version, root, tags, put(pins, given["run"], given["version"]))
        return [after] if ok(output, given["version"]) else []
    if op == "unpin":
        if pinned is None:
            return [state] if refused(output, 0) else []
        after = (version, root, tags, put(pins, given["run"], -abs(pinned)))
        return [after] if ok(output, abs(pinned)) else []
    raise ValueError(f"there is no operation {op}")


def linearizable(ops):
    """True, False, or None when the search gives up. Depth first over (set of done operations, state)."""
    ops = sorted(ops, key=lambda o: o["callMs"])
    ends = [NEVER if o["returnMs"] is None else o["returnMs"] for o in ops]
    wanted = sum(1 << i for i, end in enumerate(ends) if end != NEVER)
    start = (0, (0, "", (), ()))
    seen = {start}
    stack = [(start, 0)]
    while stack:
        (done, state), first = stack.pop()
        if done & wanted == wanted:
            return True
        while done >> first & 1:
            first += 1
        bound = NEVER
        following = []
        for i in range(first, len(ops)):
            if ops[i]["callMs"] > bound:
                break  # Something that is not done had returned before this began.
            if done >> i & 1:
                continue
            bound = min(bound, ends[i])
            for after in step(state, ops[i]["op"], ops[i]["input"], ops[i]["output"]):
                node = (done | 1 << i, after)
                if node not in seen:
                    seen.add(node)
                    following.append((node, first))
        if len(seen) > STATES_MAX:
            return None
        # What returned first is tried first: it is on top of the stack.
        stack.extend(reversed(following))
    return False


def main(path):
    datasets = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            operation = json.loads(line)
            if set(operation) != KEYS:
                sys.exit(f"a line must have exactly {sorted(KEYS)}: {line}")
            datasets.setdefault(operation["input"]["dataset"], []).append(operation)
    verdicts = {name: linearizable(ops) for name, ops in datasets.items()}
    for name, verdict in verdicts.items():
        if verdict is not True:
            print(f"{name}: {'unknown' if verdict is None else 'not linearizable'}")
    count = sum(map(len, datasets.values()))
    print(f"{count} operations on {len(datasets)} datasets, {sum(v is True for v in verdicts.values())} linearizable")
    if not datasets or False in verdicts.values():
        return 1
    return 2 if None in verdicts.values() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
