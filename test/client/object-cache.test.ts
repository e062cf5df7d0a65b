import { expect, test } from "vitest";
import { createObjectCache } from "../../src/client/object-cache.ts";
import type { Digest } from "../../src/model/bytes.ts";

const digest = (n: number): Digest => `b3:${String(n).repeat(64)}`;
const bytes = (length: number, value = 7): Uint8Array => new Uint8Array(length).fill(value);

test("keeps at most so many bytes: what was not asked for the longest goes first", () => {
  const cache = createObjectCache(100);
  for (const n of [1, 2, 3]) cache.put("page", digest(n), bytes(30));
  expect(cache.get("page", digest(1))).toEqual(bytes(30));
  cache.put("page", digest(4), bytes(30));
  expect(cache.get("page", digest(2))).toBeNull();
  for (const n of [1, 3, 4]) expect(cache.get("page", digest(n))).toEqual(bytes(30));
  cache.put("page", digest(5), bytes(101));
  expect(cache.get("page", digest(5))).toBeNull();
  expect(cache.get("page", digest(1))).not.toBeNull();
});

test("putting again doesn't count twice", () => {
  const cache = createObjectCache(100);
  for (let i = 0; i < 10; i++) cache.put("page", digest(1), bytes(50));
  cache.put("page", digest(2), bytes(50));
  expect(cache.get("page", digest(1))).not.toBeNull();
});

test("what a caller writes to its bytes stays with that caller", () => {
  const cache = createObjectCache();
  const put = bytes(4);
  cache.put("schema", digest(1), put);
  put[0] = 1;
  cache.get("schema", digest(1))?.fill(9);
  expect(cache.get("schema", digest(1))).toEqual(bytes(4));
  expect(cache.get("classes", digest(1))).toBeNull();
});
