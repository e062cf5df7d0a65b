/**
 * The command line as people start it, where no group is needed: help, usage errors, exit codes.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SOURCE_MAIN, startCli } from "./run-cli.ts";

let cwd = "";
beforeAll(async () => {
  cwd = await mkdtemp(path.join(tmpdir(), "shardpact-cli-"));
});
afterAll(() => rm(cwd, { recursive: true, force: true }));

const run = (...argv: string[]) => startCli(argv, { cwd, main: SOURCE_MAIN });

describe("shardpact", { timeout: 60_000 }, () => {
  it("--help lists every verb, examples and exit codes", async () => {
    const { code, stdout } = await run("--help");
    expect(code).toBe(0);
    for (const verb of [
      "up",
      "status",
      "publish",
      "versions",
      "show",
      "diff",
      "tag",
      "pin",
      "unpin",
      "verify",
      "revoke",
      "audit",
      "backup",
      "restore",
      "recover",
      "init",
      "node",
    ]) {
      expect(stdout).toMatch(new RegExp(`^  ${verb}\\b`, "m"));
    }
    expect(stdout).toContain("shardpact publish mnist ./digits");
    expect(stdout).toContain("Exit codes:");
  });

  it("<verb> --help and help <verb> show options and examples", async () => {
    const [asked, helped] = await Promise.all([run("tag", "--help"), run("help", "tag")]);
    expect(asked.stdout).toContain("$ shardpact tag mnist@v1 prod");
    expect(asked.stdout).toContain("--expect");
    expect(helped.stdout).toBe(asked.stdout);
  });

  it("exits with 2 on wrong usage, and suggests the verb", async () => {
    const [unknown, missing, malformed] = await Promise.all([
      run("publsh"),
      run("pin", "mnist@v1"),
      run("publish", "mnist", "x", "--split", "train"),
    ]);
    expect([unknown.code, missing.code, malformed.code]).toEqual([2, 2, 2]);
    expect(unknown.stderr).toContain("publish");
    expect(missing.stderr).toContain("--run");
    expect(malformed.stderr).toContain("train=0.9");
    for (const { stderr } of [unknown, missing, malformed]) {
      expect(stderr).toMatch(/^✗ .+\n {2}code: invalid_argument\n {2}next: .*See shardpact .*--help\.\n$/);
    }
  });

  it("exits with 4 and says what next when nothing answers; one JSON line with --json", async () => {
    const nowhere = ["--url", "nats://127.0.0.1:1", "--timeout", "0.3"];
    const [plain, json] = await Promise.all([run("versions", ...nowhere), run("versions", ...nowhere, "--json")]);
    expect([plain.code, json.code]).toEqual([4, 4]);
    expect(plain.stderr).toMatch(/^✗ .*127\.0\.0\.1:1/);
    expect(plain.stderr).toContain("next:");
    expect(plain.stderr).not.toContain("    at ");
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: "unavailable" } });
  });
});
