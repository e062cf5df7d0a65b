/**
 * Values of a file's dictionary against the agreed vocabulary.
 */
import { Utf8, vectorFromArray } from "apache-arrow";
import { expect, test } from "vitest";
import { vocabularyTable } from "../../src/shards/decode.ts";

test("a null and a text that is not agreed are no class, also where an empty text is one", () => {
  const dictionary = vectorFromArray(["b", null, "", "z", "a"], new Utf8());
  expect([...vocabularyTable(dictionary, ["", "a", "b"])]).toEqual([2, -1, 0, -1, 1]);
});
