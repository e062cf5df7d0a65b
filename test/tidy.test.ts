/**
 * The house rules, as tests: layers, cycles, lengths, doors, purity. A finding names file and line.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type SourceFile, readRootFile, sourceFiles } from "./support/source-tree.ts";

const FILE_LINES_MAX = 300;
const FUNCTION_LINES_MAX = 70;

const files = sourceFiles("src");

/**
 * Which layer may import which; its own is allowed. `port.ts` files hold types only and are open to anybody.
 * The files directly in src are the library's own wiring, cli wires a process: both may import everything.
 */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  model: [],
  consensus: [],
  merkle: ["model"],
  catalog: ["model", "merkle"],
  transport: ["model"],
  storage: ["model", "merkle", "catalog", "consensus/engine.ts"],
  replica: ["model", "merkle", "catalog", "consensus"],
  shards: ["model", "merkle"],
  import: ["model", "merkle", "shards"],
  client: ["model", "merkle", "shards", "import"],
  loader: ["model", "merkle", "shards", "client"],
  tfjs: ["model", "merkle", "shards", "client", "loader"],
};

/** Packages that only the named places may import: the rest of the code does not know that they exist. */
const DOORS: Readonly<Record<string, RegExp>> = {
  pg: /^src\/(storage\/postgres\/|cli\/embedded\/postgres\.ts|cli\/audit)/,
  "pg-copy-streams": /^src\/storage\/postgres\//,
  "drizzle-orm": /^src\/storage\/postgres\//,
  nats: /^src\/(transport\/nats[^/]*\.ts|shards\/stores\/nats-[a-z]+\.ts|model\/keys\.ts)$/,
  "@aws-sdk/client-s3": /^src\/shards\/stores\/s3-/,
  "@duckdb/node-api": /^src\/import\/duckdb/,
  sharp: /^src\/loader\/columns\/images\.ts$/,
  "@cornerstonejs/codec-libjpeg-turbo-8bit": /^src\/loader\/columns\/jpeg-turbo\.ts$/,
  commander: /^src\/cli\//,
  "@tensorflow/tfjs-core": /^src\/(tfjs\/|index\.ts|connect\.ts)/,
  "@tensorflow/tfjs-node": /^src\/tfjs/,
};

describe("layers", () => {
  test("imports point only to the layers below", () => {
    const findings = imports().flatMap(({ file, line, target }) => {
      const from = layerOf(file.path);
      const to = target === null ? null : layerOf(target);
      if (from === null || target === null || from === to || from === "cli" || target.endsWith("/port.ts")) return [];
      const allowed = LAYERS[from];
      if (allowed === undefined) return [`${file.path}: '${from}' is not in the table of layers`];
      const ok = allowed.some((name) => to === name || target === `src/${name}`);
      return ok ? [] : [`${file.path}:${line} imports ${target}`];
    });
    expect(findings).toEqual([]);
  });

  test("port files hold types only", () => {
    const ports = files.filter(({ path }) => path.endsWith("/port.ts"));
    const findings = ports.flatMap(({ path, imports: all, code }) => [
      ...all
        .filter(({ typeOnly }) => !typeOnly)
        .map(({ line, specifier }) => `${path}:${line} imports ${specifier} as a value`),
      ...matches(path, code, /^export (?!type|interface)/gm),
    ]);
    expect(findings).toEqual([]);
  });

  test("no cycles, types included", () => {
    const below = new Map(files.map((file) => [file.path, targetsOf(file)]));
    expect(firstCycle(below)).toBeNull();
  });

  test("each package has its door", () => {
    const findings = files.flatMap(({ path, imports: all }) =>
      all.flatMap(({ specifier, line }) => {
        const door = Object.entries(DOORS).find(
          ([name]) => specifier === name || specifier.startsWith(`${name}/`),
        )?.[1];
        return door === undefined || door.test(path) ? [] : [`${path}:${line} imports ${specifier}`];
      }),
    );
    expect(findings).toEqual([]);
  });

  test("a thread that scans or uploads files loads no package but BLAKE3: each thread pays for its modules again", () => {
    const byPath = new Map(files.map((file) => [file.path, file]));
    const loaded = new Set(["src/shards/file-worker.ts"]);
    const packages = new Set<string>();
    for (const path of loaded) {
      for (const { file, specifier, typeOnly } of byPath.get(path)?.imports ?? []) {
        if (typeOnly) continue;
        if (file !== null) loaded.add(file);
        else if (!specifier.startsWith("node:")) packages.add(specifier);
      }
    }
    expect(loaded).toContain("src/shards/directory-store.ts");
    expect([...packages]).toEqual(["@napi-rs/blake-hash"]);
  });

  test("relative imports name a file of src, with .ts", () => {
    const known = new Set(files.map(({ path }) => path));
    const findings = imports().filter(({ target }) => target !== null && !known.has(target));
    expect(findings.map(({ file, line, target }) => `${file.path}:${line} imports ${target}`)).toEqual([]);
  });
});

describe("files", () => {
  test(`at most ${FILE_LINES_MAX} lines`, () => {
    const long = files.filter(({ lineCount }) => lineCount > FILE_LINES_MAX);
    expect(long.map(({ path, lineCount }) => `${path}: ${lineCount}`)).toEqual([]);
  });

  test(`functions have at most ${FUNCTION_LINES_MAX} lines of their own`, () => {
    const findings = files.flatMap(({ path, functions }) =>
      functions
        .filter(({ ownLines }) => ownLines > FUNCTION_LINES_MAX)
        .map(({ line, name, ownLines }) => `${path}:${line} ${name}: ${ownLines}`),
    );
    expect(findings).toEqual([]);
  });

  test("the first thing in a file is what it owns", () => {
    expect(files.filter(({ startsWithDoc }) => !startsWithDoc).map(({ path }) => path)).toEqual([]);
  });

  test("names are kebab-case", () => {
    expect(files.map(({ path }) => path).filter((path) => !/^[a-z0-9/-]+\.ts$/.test(path))).toEqual([]);
  });

  test("console is for the command line", () => {
    expect(search(/\bconsole\s*\./g, (path) => !path.startsWith("src/cli/"))).toEqual([]);
  });

  test("no `any`, no check suppressed without a reason, nothing left to do", () => {
    expect(search(/:\s*any\b|\bas any\b|<any>/g)).toEqual([]);
    const left = /@ts-(ignore|nocheck|expect-error)|(eslint|oxlint)-disable(?!.* -- )|\b(TODO|FIXME|XXX)\b/g;
    expect(files.flatMap(({ path, text }) => matches(path, text, left))).toEqual([]);
  });
});

describe("the pure core", () => {
  const IMPURE =
    /\b(Date|Promise|performance|process|console|crypto)\b|Math\.random|\bset(Timeout|Interval|Immediate)\b|queueMicrotask|\b(async|await)\b/g;

  test("consensus has no clock, no randomness, no I/O, no Promise", () => {
    expect(search(IMPURE, (path) => path.startsWith("src/consensus/"))).toEqual([]);
    const outside = files
      .filter(({ path }) => path.startsWith("src/consensus/"))
      .flatMap(({ path, imports: all }) =>
        all.filter(({ file }) => file === null).map(({ specifier }) => `${path}: ${specifier}`),
      );
    expect(outside).toEqual([]);
  });

  test("the catalog decides without clock and randomness", () => {
    expect(search(/\bDate\b|Math\.random|randomUUID|randomBytes/g, (path) => path.startsWith("src/catalog/"))).toEqual(
      [],
    );
  });
});

describe("the simulated code", () => {
  /** What `test/sim` runs in virtual time: all of it would make a seed more than a run. */
  const SIMULATED =
    /^src\/(consensus|catalog|merkle|model|replica|client)\/|^src\/storage\/([^/]+\.ts$|memory\/|snapshot\/)|^src\/transport\/(memory|requests|subjects)\.ts$/;
  /** The ports themselves, keys that are made once, a temporary file's name. */
  const DOORS_OF_TIME = new Set([
    "src/client/timing.ts",
    "src/client/lock.ts",
    "src/replica/runtime.ts",
    "src/transport/memory.ts",
  ]);
  const OUTSIDE =
    /\bDate\.now\b|\bnew Date\(\)|\bperformance\.|\bprocess\.(hrtime|uptime)|Math\.random|\brandom(UUID|Bytes|Int)\b|getRandomValues|\bset(Timeout|Interval|Immediate)\b|\bnextTick\b/g;

  test("takes clocks, timers and chance from `Runtime` and `Timing` alone", () => {
    expect(search(OUTSIDE, (path) => SIMULATED.test(path) && !DOORS_OF_TIME.has(path))).toEqual([]);
    for (const path of DOORS_OF_TIME)
      expect(
        files.some((file) => file.path === path),
        path,
      ).toBe(true);
  });
});

describe("SQL", () => {
  const NONDETERMINISTIC =
    /\bnow\(\)|\bcurrent_(timestamp|time|date)\b|\bclock_timestamp\b|\bnextval\b|\brandom\(\)|\b(big)?serial\b|generated (always|by default) as identity|gen_random_uuid/gi;

  test("what apply writes has no clock, no sequence and no default that varies", () => {
    const folder = join(import.meta.dirname, "..", "migrations");
    const sql = readdirSync(folder).filter((name) => name.endsWith(".sql"));
    expect(sql.length).toBeGreaterThan(0);
    const findings = sql.flatMap((name) =>
      matches(name, withoutSqlComments(readRootFile(`migrations/${name}`)), NONDETERMINISTIC),
    );
    expect(findings).toEqual([]);
    expect(
      search(/\bnow\(\)|clock_timestamp|nextval|\.defaultNow\(|\bserial\(/g, (path) =>
        path.startsWith("src/storage/postgres/"),
      ),
    ).toEqual([]);
  });

  test("the migrator would apply every migration: journal times rise and name the files", () => {
    const journal = JSON.parse(readRootFile("migrations/meta/_journal.json")) as {
      entries: { idx: number; when: number; tag: string }[];
    };
    const folder = join(import.meta.dirname, "..", "migrations");
    for (const [i, entry] of journal.entries.entries()) {
      expect(entry.idx).toBe(i);
      expect(entry.when).toBeGreaterThan(journal.entries[i - 1]?.when ?? 0);
      expect(existsSync(join(folder, `${entry.tag}.sql`))).toBe(true);
    }
    const count = readdirSync(folder).filter((name) => name.endsWith(".sql")).length;
    expect(journal.entries).toHaveLength(count);
  });
});

describe("the package", () => {
  interface Entry {
    readonly version?: string;
    readonly optionalDependencies?: Readonly<Record<string, string>>;
  }
  const manifest = JSON.parse(readRootFile("package.json")) as {
    dependencies: Record<string, string>;
    peerDependencies: Record<string, string>;
    exports: Record<string, unknown>;
  };

  test("every package that src imports is a dependency or a peer", () => {
    const declared = new Set([...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies)]);
    const findings = files.flatMap(({ path, imports: all }) =>
      all
        .filter(({ file, specifier }) => file === null && !specifier.startsWith("node:"))
        .filter(({ specifier }) => !declared.has(packageOf(specifier)))
        .map(({ line, specifier }) => `${path}:${line} imports ${specifier}`),
    );
    expect(findings).toEqual([]);
  });

  test("every export has its source", () => {
    const sources = Object.entries(manifest.exports)
      .filter(([name]) => name !== "./package.json")
      .map(([, target]) => (target as { default: string }).default.replace("./dist/", "src/").replace(/\.js$/, ".ts"));
    const known = new Set(files.map(({ path }) => path));
    expect(sources.filter((path) => !known.has(path))).toEqual([]);
  });

  test("public doors list their exports one by one", () => {
    const doors = files.filter(({ path }) => /^src\/(\w+\/)?index\.ts$/.test(path));
    expect(doors.flatMap(({ path, code }) => matches(path, code, /^export \*/gm))).toEqual([]);
  });

  test("the lock file holds every platform's packages and no address (npm run complete-lock)", () => {
    const lock = JSON.parse(readRootFile("package-lock.json")) as { packages: Record<string, Entry> };
    const names = new Set(Object.keys(lock.packages).map((path) => path.split("node_modules/").pop()));
    const missing = Object.values(lock.packages).flatMap(({ optionalDependencies = {} }) =>
      Object.keys(optionalDependencies).filter((name) => !names.has(name)),
    );
    expect(missing).toEqual([]);
    expect(readRootFile("package-lock.json")).not.toContain('"resolved"');
  });
});

function imports(): readonly { file: SourceFile; line: number; target: string | null }[] {
  return files.flatMap((file) => file.imports.map(({ line, file: target }) => ({ file, line, target })));
}

function targetsOf(file: SourceFile): readonly string[] {
  return file.imports.flatMap(({ file: target }) => (target === null ? [] : [target]));
}

/** `src/model/errors.ts` → `model`; null for files directly in src. */
function layerOf(path: string): string | null {
  const [, layer, ...rest] = path.split("/");
  return rest.length === 0 ? null : (layer ?? null);
}

/** Depth-first; the cycle as text, or null. */
function firstCycle(below: ReadonlyMap<string, readonly string[]>): string | null {
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): string | null => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path].join(" → ");
    if (done.has(path)) return null;
    for (const next of below.get(path) ?? []) {
      const cycle = visit(next, [...trail, path]);
      if (cycle !== null) return cycle;
    }
    done.add(path);
    return null;
  };
  for (const path of below.keys()) {
    const cycle = visit(path, []);
    if (cycle !== null) return cycle;
  }
  return null;
}

function search(pattern: RegExp, where: (path: string) => boolean = () => true): string[] {
  return files.filter(({ path }) => where(path)).flatMap(({ path, code }) => matches(path, code, pattern));
}

function matches(path: string, text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(
    (match) => `${path}:${text.slice(0, match.index).split("\n").length} ${match[0].trim()}`,
  );
}

function withoutSqlComments(sql: string): string {
  return sql.replaceAll(/--.*$/gm, "");
}

function packageOf(specifier: string): string {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : (parts[0] ?? "");
}
