import { describe, expect, it } from "vitest";
import { notFoundAnswer, pagesAnswer, rowsAnswer, versionAnswer } from "../../src/catalog/answers.ts";
import type {
  DatasetRow,
  ReceiptRow,
  RevocationRow,
  RunRow,
  VersionPageRow,
  VersionRow,
} from "../../src/catalog/rows.ts";
import { versionAnswer as versionShape } from "../../src/model/api.ts";
import { canonicalJson } from "../../src/model/commands.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { createTestCatalog, digestOf, pageOf, T0 } from "../support/catalog.ts";

const revocation: RevocationRow = {
  table: "revocation",
  subject: "mnist@v1",
  index: 9,
  timeMs: T0,
  actor: "ada",
  reason: "r",
};
const dataset = (name: string): DatasetRow => ({
  table: "dataset",
  name,
  headVersion: 1,
  headIndex: 5,
  headRoot: digestOf(name),
  createdIndex: 5,
});
const names = (answer: ReturnType<typeof rowsAnswer>): unknown[] =>
  answer.kind === "rows" ? answer.rows.map((row) => row["name"]) : [];

function committed(): { version: VersionRow; pages: VersionPageRow[] } {
  const catalog = createTestCatalog();
  catalog.commit({ pages: [pageOf("p"), pageOf("q", 1, 1)] });
  const rows = [...catalog.rows.values()];
  const version = rows.find((row) => row.table === "version");
  if (version?.table !== "version") throw new Error("no version");
  return { version, pages: rows.filter((row) => row.table === "version_page") as VersionPageRow[] };
}

describe("answers", () => {
  it("a version: all that the root covers, in the shape of the API, with its revocation", () => {
    const { version } = committed();
    const answer = versionAnswer(version, revocation);
    expect(versionShape.parse(answer)).toEqual(answer);
    expect(answer.revocation).toEqual({ subject: "mnist@v1", index: 9, timeMs: T0, actor: "ada", reason: "r" });
    expect(versionAnswer(version, null).revocation).toBeNull();
    expect(Object.keys(answer)).not.toContain("frontier");
  });

  it("do not depend on the order or the extra columns that a store loads", () => {
    const { version, pages } = committed();
    const noisy = { ...version, extra: 1, totals: version.totals.map((t) => ({ ...t, extra: 1 })) };
    expect(canonicalJson(versionAnswer(noisy, null))).toBe(canonicalJson(versionAnswer(version, null)));
    expect(pagesAnswer(pages.toReversed())).toEqual(pagesAnswer(pages));
    expect(pagesAnswer(pages)).toMatchObject({ entries: pages.map(({ page, totals }) => ({ page, totals })) });
  });

  it("lists: sorted by key, after a key, up to a limit, without the table's name", () => {
    const rows = ["c", "a", "b", "d"].map(dataset);
    expect(names(rowsAnswer("datasets", rows))).toEqual(["a", "b", "c", "d"]);
    expect(names(rowsAnswer("datasets", rows, { after: "a", limit: 2 }))).toEqual(["b", "c"]);
    expect(names(rowsAnswer("datasets", rows, { after: "", limit: 9 }))).toEqual(["a", "b", "c", "d"]);
    expect(rowsAnswer("datasets", [dataset("a")])).toEqual({
      kind: "rows",
      rows: [{ name: "a", headVersion: 1, headIndex: 5, headRoot: digestOf("a"), createdIndex: 5 }],
    });
  });

  it("a run: its row, then its receipts, the newest first and the oldest left out", () => {
    const run = { table: "run", run: "r", index: 3 } as RunRow;
    const receipts = Array.from({ length: LIMITS.apiRowsMax }, (_, i): ReceiptRow => {
      return { table: "receipt", run: "r", rank: 0, index: 10 + i, timeMs: T0, receipt: {} };
    });
    const answer = rowsAnswer("run", [...receipts, run]);
    if (answer.kind !== "rows") throw new Error("no rows");
    expect(answer.rows).toHaveLength(LIMITS.apiRowsMax);
    expect(answer.rows.slice(0, 2)).toMatchObject([
      { table: "run" },
      { table: "receipt", index: 9 + LIMITS.apiRowsMax },
    ]);
  });

  it("the ledger: a payload is named by its digest", () => {
    const catalog = createTestCatalog();
    catalog.run("shard.revoke", { digest: digestOf("x"), reason: "r" });
    const answer = rowsAnswer("ledger", catalog.ledger, { after: 0 });
    if (answer.kind !== "rows") throw new Error("no rows");
    expect(answer.rows[0]).toMatchObject({ index: 1, kind: "shard.revoke", payload: expect.stringMatching(/^b3:/) });
    expect(JSON.parse(canonicalJson(answer.rows))).toEqual(answer.rows);
    expect(rowsAnswer("ledger", catalog.ledger, { after: 1 })).toEqual({ kind: "rows", rows: [] });
  });

  it("what is not there, with near names", () => {
    expect(notFoundAnswer("dataset 'minst'", "minst", ["mnist", "cifar"])).toEqual({
      kind: "not_found",
      what: "dataset 'minst'",
      nearest: ["mnist"],
    });
  });
});
