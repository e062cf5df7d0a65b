import { expect, it } from "vitest";
import { createPassedOverNotices } from "../../src/client/passed-over.ts";
import type { Notice } from "../../src/client/session.ts";
import { ShardpactError } from "../../src/model/errors.ts";

it("of a decaying disk a bounded number of copies is told, the last time with where to look", () => {
  const notices: Notice[] = [];
  const tell = createPassedOverNotices((notice) => notices.push(notice));
  for (let i = 0; i < 1_000; i++) {
    const error = new ShardpactError("shard_corrupt", `copy ${i}`, { details: { digest: `b3:${i}` } });
    for (let again = 0; again < 3; again++) tell({ store: "file:///a", error });
  }
  expect(notices).toHaveLength(65);
  expect(notices[0]).toMatchObject({ code: "bad_copy", details: { store: "file:///a" } });
  expect(notices[0]?.message).not.toContain("shardpact verify");
  expect(notices.at(-1)?.message).toContain("shardpact verify");
});
