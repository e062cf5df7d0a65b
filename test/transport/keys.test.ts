import { nkeys } from "nats";
import { expect, test } from "vitest";
import { createSeed, nkeyOf, publicKeyHex, sign, signingKey, verify } from "../../src/model/keys.ts";

const bytes = new TextEncoder().encode("an answer");

test("a seed signs the same way for node:crypto and for NATS", () => {
  const seed = createSeed();
  expect(seed).toMatch(/^SU[A-Z2-7]{56}$/);
  expect(nkeyOf(seed)).toMatch(/^U[A-Z2-7]{55}$/);
  const signature = sign(seed, bytes);
  expect(signature).toEqual(new Uint8Array(nkeys.fromSeed(new TextEncoder().encode(seed)).sign(bytes)));
  expect(nkeys.fromPublic(nkeyOf(seed)).verify(bytes, signature)).toBe(true);
  expect(verify(publicKeyHex(seed), bytes, signature)).toBe(true);
  expect(sign(signingKey(seed), bytes)).toEqual(signature);
});

test("another key, another text and malformed input do not verify", () => {
  const seed = createSeed();
  const signature = sign(seed, bytes);
  expect(verify(publicKeyHex(createSeed()), bytes, signature)).toBe(false);
  expect(verify(publicKeyHex(seed), bytes.slice(1), signature)).toBe(false);
  expect(verify("xyz", bytes, signature)).toBe(false);
  expect(verify(publicKeyHex(seed), bytes, signature.slice(1))).toBe(false);
});

test("a seed that is none is refused by code", () => {
  for (const seed of ["", "SUXX", nkeyOf(createSeed()), `${createSeed().slice(0, -1)}A1`]) {
    expect(() => publicKeyHex(seed)).toThrow(expect.objectContaining({ code: "config_invalid" }));
  }
});
