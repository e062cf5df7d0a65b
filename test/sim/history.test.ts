/**
 * Histories are judged by a checker in another language, too: `check_history.py` reads what the simulator writes.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tempDir } from "../support/temp-dir.ts";
import type { HistoryLine } from "./history.ts";
import { simulate } from "./simulate.ts";

const CHECKER = fileURLToPath(new URL("check_history.py", import.meta.url));

function judge(file: string): { readonly code: number | null; readonly said: string } {
  const { status, stdout, stderr, error } = spawnSync("python3", [CHECKER, file], { encoding: "utf8" });
  if (error) throw new Error("python3 is needed to judge histories: install it", { cause: error });
  return { code: status, said: stdout + stderr };
}

describe("histories as JSON lines", () => {
  let dir: Awaited<ReturnType<typeof tempDir>>;
  let lines: HistoryLine[];
  let file: string;
  beforeAll(async () => {
    dir = await tempDir("history");
    file = join(dir.path, "history.jsonl");
    for (const seed of [1, 3]) await simulate(seed, { stormMs: 4_000, historyFile: file });
    lines = readFileSync(file, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as HistoryLine);
  }, 120_000);
  afterAll(() => dir.remove());

  const tampered = (name: string, edit: (line: HistoryLine, at: number) => HistoryLine): string => {
    const path = join(dir.path, name);
    writeFileSync(path, lines.map((line, at) => `${JSON.stringify(edit(line, at))}\n`).join(""));
    return path;
  };

  it("have exactly the six members, and are linearizable to both checkers", () => {
    expect(lines.length).toBeGreaterThan(100);
    const members = ["callMs", "input", "op", "output", "process", "returnMs"];
    for (const line of lines) expect(Object.keys(line).sort()).toEqual(members);
    const { code, said } = judge(file);
    expect(said).toContain(`${lines.length} operations`);
    expect(code, said).toBe(0);
  });

  it("with one answer changed are not", () => {
    const answered = lines.findLastIndex(
      ({ op, output }) => op === "head" && output?.kind === "ok" && output.version > 1,
    );
    const stale = tampered("stale", (line, at) =>
      at === answered && line.output ? { ...line, output: { ...line.output, version: line.output.version - 1 } } : line,
    );
    expect(judge(stale)).toMatchObject({ code: 1, said: expect.stringContaining("not linearizable") as string });
    const lost = lines.findIndex(({ op, output }) => op === "commit" && output?.kind === "ok");
    const never = tampered("lost", (line, at) =>
      at === lost ? { ...line, input: { ...line.input, root: "b3:another" } } : line,
    );
    expect(judge(never).code).toBe(1);
  });

  it("are no histories without their members", () => {
    const other = tampered("other", (line) => ({ ...line, extra: 1 }));
    expect(judge(other).code).toBe(1);
    writeFileSync(join(dir.path, "empty"), "");
    expect(judge(join(dir.path, "empty")).code).toBe(1);
  });
});
