/**
 * Owns the S3 server that the tests of the S3 store need: built once with Go, kept in the cache. Nobody else needs it.
 */
import { existsSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CACHE, ensureDir, run, tail, which } from "./steps.mjs";

const VERSION = "v1.8.0";
const MODULE = `github.com/versity/versitygw/cmd/versitygw@${VERSION}`;
/** `test/support/s3-server.ts` looks in the same place. */
const DIR = join(CACHE, "versitygw", "bin");
const CACHED = join(DIR, `versitygw-${VERSION}`);

/** Resolves with the line to print. @throws Error naming what is missing */
export async function setupS3Server(say) {
  if (existsSync(CACHED)) return `versitygw ${VERSION} (cache)`;
  const go = which("go", ["/usr/local/go/bin"]);
  if (go === null) {
    throw new Error(
      "no Go, which builds the S3 server that the tests of the S3 store run against.\n" +
        "Install Go 1.24 or later (https://go.dev/dl, or your distribution's package) and run it again.",
    );
  }
  // Beside its goal: the rename must not cross file systems, and two set-ups at once must not leave half a file.
  const dir = mkdtempSync(join(ensureDir(DIR), "new-"));
  try {
    say(`building versitygw ${VERSION} with Go, for the tests (about a minute, once)`);
    const built = await run(go, ["install", MODULE], { env: { GOBIN: dir, CGO_ENABLED: "0" } });
    if (built.code !== 0) throw new Error(`go install ${MODULE} failed:\n${tail(built.output)}`);
    renameSync(join(dir, "versitygw"), CACHED);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return `versitygw ${VERSION} (built with Go, now in the cache)`;
}
