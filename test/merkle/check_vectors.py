#!/usr/bin/env python3
"""Repeats vectors.json from the text of docs/spec.md alone: no code is shared with Shardpact.

Run: pip install blake3 && python3 test/merkle/check_vectors.py
"""
import json
import pathlib
import struct

from blake3 import blake3

HERE = pathlib.Path(__file__).parent
checked = 0


def h(context, material):
    return blake3(material, derive_key_context=context).digest()


def check(what, got, expected):
    global checked
    checked += 1
    if got != expected:
        raise SystemExit(f"{what}: got {got}, expected {expected}")


def raw(digest):
    assert digest.startswith("b3:")
    return bytes.fromhex(digest[3:])


def text(value):
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def number(value):
    """A JSON number as ECMAScript writes it, for the values that the vectors hold."""
    if isinstance(value, int):
        return str(value)
    if value == 0:
        return "0"
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    out = repr(value)
    if "e" in out:
        mantissa, exponent = out.split("e")
        out = f"{mantissa}e{int(exponent):+d}"
    return out


def canonical(value):
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"


def totals_bytes(totals):
    return b"".join(struct.pack("<IQQI", t["split"], t["rows"], t["bytes"], t["shards"]) for t in totals)


def page_bytes(entries):
    names = [entry["name"].encode() for entry in entries]
    ends = [sum(map(len, names[: i + 1])) for i in range(len(names))]
    return b"".join(
        [
            b"SPPG",
            struct.pack("<HHI", 1, len(entries), sum(map(len, names))),
            b"".join(struct.pack("<I", end) for end in ends),
            bytes(entry["split"] for entry in entries),
            b"".join(struct.pack("<Q", entry["rows"]) for entry in entries),
            b"".join(struct.pack("<Q", entry["bytes"]) for entry in entries),
            b"".join(raw(entry["digest"]) for entry in entries),
            b"".join(raw(entry["segmentIndex"]) for entry in entries),
            b"".join(names),
        ]
    )


def node(left, right):
    return h("shardpact manifest node/1", left + right)


def split_point(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def tree(leaves):
    """RFC 9162, 2.1.1."""
    if not leaves:
        return h("shardpact manifest node/1", b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split_point(len(leaves))
    return node(tree(leaves[:k]), tree(leaves[k:]))


def frontier(leaves):
    out, at, rest = [], 0, len(leaves)
    while rest:
        size = 1 << (rest.bit_length() - 1)
        out.append(tree(leaves[at : at + size]))
        at, rest = at + size, rest - size
    return out


def path(m, leaves):
    """RFC 9162, 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split_point(len(leaves))
    if m < k:
        return path(m, leaves[:k]) + [tree(leaves[k:])]
    return path(m - k, leaves[k:]) + [tree(leaves[:k])]


def subproof(m, leaves, whole):
    """RFC 9162, 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [tree(leaves)]
    k = split_point(len(leaves))
    if m <= k:
        return subproof(m, leaves[:k], whole) + [tree(leaves[k:])]
    return subproof(m - k, leaves[k:], False) + [tree(leaves[:k])]


def check_tree(vectors):
    def leaves(n):
        return [h("shardpact manifest leaf/1", struct.pack("<I", i)) for i in range(n)]

    for v in vectors["roots"]:
        check(f"tree of {v['size']}", tree(leaves(v["size"])).hex(), v["root"])
        check(f"frontier of {v['size']}", [x.hex() for x in frontier(leaves(v["size"]))], v["frontier"])
    for v in vectors["inclusion"]:
        check(f"inclusion of {v['index']}", [x.hex() for x in path(v["index"], leaves(v["size"]))], v["proof"])
    for v in vectors["consistency"]:
        proof = subproof(v["older"], leaves(v["newer"]), True)
        check(f"consistency of {v['older']}", [x.hex() for x in proof], v["proof"])


def root_bytes(f):
    return b"".join(
        [
            struct.pack("<I", 1),
            text("blake3"),
            raw(f["schema"]),
            raw(f["classes"]),
            struct.pack("<I", len(f["splits"])),
            *map(text, f["splits"]),
            text(canonical(f["splitRule"])),
            struct.pack("<I", f["pageCount"]),
            raw(f["treeHash"]),
            struct.pack("<I", len(f["totals"])),
            totals_bytes(f["totals"]),
        ]
    )


def segment_index_bytes(v):
    kinds = ["head", "schema", "dictionary", "batch", "footer"]
    segments = v["segments"]
    head = struct.pack("<4sIQ", b"SPSI", 1, v["fileBytes"]) + bytes.fromhex(v["fileDigest"])
    head += struct.pack("<IIII", 131072, len(segments), len(v["dictionaryIds"]), len(v["leaves"]))
    head += b"".join(struct.pack("<Q", i) for i in v["dictionaryIds"])
    head += b"".join(struct.pack("<Q", s["bytes"]) for s in segments)
    head += b"".join(struct.pack("<Q", s["rows"]) for s in segments)
    head += bytes(kinds.index(s["kind"]) for s in segments)
    head += bytes(-len(head) % 8)
    return head + b"".join(map(bytes.fromhex, v["leaves"]))


PRIMARY_KEYS = {"page": ["digest"], "shard": ["page", "ordinal"]}


def check_log(vectors):
    kinds = {"noop": 0, "config": 1, "command": 2}
    chain = state = bytes(32)
    commands = iter(vectors["commands"])
    for entry in vectors["log"]:
        index, payload = entry["index"], bytes.fromhex(entry["payload"])
        if entry["kind"] == "command":
            command = next(commands)
            head = canonical({key: command[key] for key in ("id", "actor", "kind", "body")})
            encoded = text(head) + bytes.fromhex(command["blob"])
            check(f"payload {index}", payload[:1] + payload[9:], b"\x01" + encoded)
            check(f"body digest {index}", h("shardpact command body/1", encoded).hex(), entry["bodyDigest"])
        link = chain + struct.pack("<QB", index, kinds[entry["kind"]]) + payload
        chain = h("shardpact chain/1", link)
        check(f"chain {index}", chain.hex(), entry["chain"])
        outcome = entry["outcome"]
        said = outcome if outcome["ok"] else {"ok": False, "code": outcome["error"]["code"]}

        def key(row):
            return "\n".join([row["table"], *(str(row[column]) for column in PRIMARY_KEYS[row["table"]])])

        rows = [text(canonical(row)) for row in sorted(entry["rows"], key=key)]
        parts = [struct.pack("<QQI", index, entry["timeMs"], len(rows)), *rows, text(canonical(said))]
        state = h("shardpact state/1", state + b"".join(parts))
        check(f"state digest {index}", state.hex(), entry["stateDigest"])


def main():
    vectors = json.loads((HERE / "vectors.json").read_text())
    for v in vectors["contexts"]:
        check(v["context"], h(v["context"], bytes.fromhex(v["material"])).hex(), v["digest"])
    for v in vectors["canonicalJson"]:
        check("canonical JSON", canonical(v["value"]), v["json"])
    page = vectors["page"]
    data = page_bytes(page["entries"])
    check("page", data.hex(), page["bytes"])
    check("page digest", "b3:" + h("shardpact page/1", data).hex(), page["digest"])
    leaf = h("shardpact manifest leaf/1", raw(page["digest"]) + totals_bytes(page["totals"]))
    check("manifest leaf", leaf.hex(), page["leaf"])
    check_tree(vectors["tree"])
    root = vectors["root"]
    check("root bytes", root_bytes(root["fields"]).hex(), root["bytes"])
    check("root", "b3:" + h("shardpact root/1", root_bytes(root["fields"])).hex(), root["root"])
    classes = vectors["classes"]
    data = canonical(classes["classes"]).encode()
    check("classes", data.hex(), classes["bytes"])
    check("classes digest", "b3:" + h("shardpact classes/1", data).hex(), classes["digest"])
    index = vectors["segmentIndex"]
    data = segment_index_bytes(index)
    check("segment index", data.hex(), index["bytes"])
    check("segment index digest", "b3:" + h("shardpact segment index/1", data).hex(), index["digest"])
    check_log(vectors["log"])
    print(f"{checked} values agree")


main()
