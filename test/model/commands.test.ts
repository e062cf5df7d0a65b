import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytesEqual, utf8 } from "../../src/model/bytes.ts";
import {
  canonicalJson,
  decodeCommand,
  encodeCommand,
  parseCommand,
  readStamp,
  stampCommand,
} from "../../src/model/commands.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { digestOf, freshId } from "../support/catalog.ts";

const revoke = (reason = "labels", blob: Uint8Array = new Uint8Array(0)) =>
  parseCommand({ id: freshId(), actor: "ada", kind: "shard.revoke", body: { digest: digestOf("x"), reason }, blob });

describe("command bytes (docs/spec.md, Command)", () => {
  it("decode to what was encoded, under any leader's time", () => {
    const command = revoke("ä\u2028", utf8("blob"));
    const payload = stampCommand(encodeCommand(command), 1_700_000_000_000);
    const { timeMs, encoded } = readStamp(payload);
    expect(timeMs).toBe(1_700_000_000_000);
    expect(decodeCommand(encoded)).toEqual(command);
    expect(bytesEqual(encodeCommand(decodeCommand(encoded)), encoded)).toBe(true);
  });

  it("a payload of any bytes decodes or is refused, never anything else", () => {
    const payload = stampCommand(encodeCommand(revoke()), 1);
    fc.assert(
      fc.property(fc.nat(payload.byteLength - 1), fc.nat(255), fc.nat(payload.byteLength), (at, byte, length) => {
        const bytes = payload.slice(0, length);
        if (at < length) bytes[at] = byte;
        try {
          decodeCommand(readStamp(bytes).encoded);
        } catch (error) {
          if (!isShardpactError(error) || error.code === "internal") throw error;
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("are bounded", () => {
    const large = revoke("x", new Uint8Array(LIMITS.commandBytesMax));
    expect(() => encodeCommand(large)).toThrow(expect.objectContaining({ code: "limit_exceeded" }));
  });
});

describe("parseCommand refuses", () => {
  const body = { digest: digestOf("x"), reason: "r" };
  it.each<[string, string, Record<string, unknown>]>([
    ["an unknown kind", "upgrade_required", { kind: "shard.bless" }],
    ["an id of another shape", "invalid_argument", { id: "X" }],
    ["no actor", "invalid_argument", { actor: "" }],
    ["no reason", "invalid_argument", { body: { ...body, reason: "" } }],
    ["a digest with more behind it", "invalid_argument", { body: { ...body, digest: `${digestOf("x")}0` } }],
    ["U+0000 in text", "invalid_argument", { body: { ...body, reason: "a\u0000" } }],
    ["half a surrogate pair in a key", "invalid_argument", { body: { ...body, "\udc00": 1 } }],
    ["splits named twice", "invalid_argument", { kind: "version.commit", body: commitBody(["a", "a"]) }],
    [
      "a tag that looks like a version",
      "invalid_argument",
      { kind: "tag.move", body: { dataset: "d", tag: "v1", version: 1 } },
    ],
  ])("%s: `%s`", (_what, code, change) => {
    const command = { id: freshId(), actor: "ada", kind: "shard.revoke", body, ...change };
    expect(() => parseCommand(command as Parameters<typeof parseCommand>[0])).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

function commitBody(splits: string[]): unknown {
  const digest = digestOf("x");
  const counts = { kept: 0, added: 0, expectedHead: null };
  return {
    dataset: "d",
    ...counts,
    root: digest,
    schema: digest,
    classes: digest,
    splits,
    splitRule: { kind: "none" },
    message: "",
  };
}

describe("canonical JSON (RFC 8785)", () => {
  it("equal values are equal bytes, and parse back", () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
        const text = canonicalJson(value);
        expect(canonicalJson(JSON.parse(text))).toBe(text);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });

  it("sorts keys as text, integers among them, and leaves out what is undefined", () => {
    expect(canonicalJson({ b: undefined, "9": 1, "10": [undefined], a: { z: null, y: true } })).toBe(
      '{"10":[null],"9":1,"a":{"y":true,"z":null}}',
    );
  });
});
