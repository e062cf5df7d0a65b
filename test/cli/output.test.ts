import { describe, expect, it, vi } from "vitest";
import { bytesText, count, EXIT, exitCodeOf, printError, short, table } from "../../src/cli/output.ts";
import { ERROR_CODES, ShardpactError, type ErrorCode } from "../../src/model/errors.ts";

/** What goes to stderr while `work` runs. */
function stderrOf(work: () => void): string {
  const written: string[] = [];
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => (written.push(String(text)), true));
  try {
    work();
  } finally {
    spy.mockRestore();
  }
  return written.join("");
}

describe("errors for people", () => {
  const error = new ShardpactError("no_quorum", "1 of 3 voters answered", {
    details: { answered: ["r1"], silent: ["r2", "r3"], needed: 2, ignored: { forged: 1 } },
    hint: "Start the replicas.",
  });

  it("say what, where and what next, without a stack", () => {
    let code = -1;
    const text = stderrOf(() => void (code = printError(error, false)));
    expect(text).toBe(
      "✗ 1 of 3 voters answered\n  code: no_quorum (answered r1; silent r2, r3; needed 2)\n  next: Start the replicas.\n",
    );
    expect(code).toBe(EXIT.unavailable);
  });

  it("are one line of JSON when asked for", () => {
    const text = stderrOf(() => void printError(error, true));
    expect(JSON.parse(text)).toMatchObject({ error: { code: "no_quorum", hint: "Start the replicas." } });
  });

  it("show a stack only for a bug", () => {
    const text = stderrOf(() => void printError(new TypeError("x is undefined"), false));
    expect(text).toContain("output.test.ts");
    expect(text).toContain("bug in Shardpact");
  });

  it("every code has an exit code that is not 0", () => {
    for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
      expect(exitCodeOf(new ShardpactError(code, "")), code).toBeGreaterThan(1);
    }
  });
});

describe("figures", () => {
  it("are short and have units", () => {
    expect([0, 999, 1000, 31_360_000, 999_999, 2.5e12].map(bytesText)).toEqual([
      "0 B",
      "999 B",
      "1.00 kB",
      "31.4 MB",
      "1.00 MB",
      "2.50 TB",
    ]);
    expect([count(10_000), short(`b3:${"a".repeat(64)}`)]).toEqual(["10,000", "b3:aaaaaaaaaaaa…"]);
  });

  it("stand in columns", () => {
    expect(
      table(
        ["name", "rows"],
        [
          ["a", 5],
          ["long", 12_345],
        ],
      ),
    ).toBe("name    rows\na          5\nlong  12,345");
    expect(table(["name"], [])).toBe("name");
  });
});
