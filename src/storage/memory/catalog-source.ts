/**
 * Owns reads of the in-memory catalog as of a log index: filters over all rows, in key order.
 */
import type { PinRow, RevocationRow, Row, Table, TagRow, VersionRow } from "../../catalog/rows.ts";
import type { LogIndex } from "../../consensus/engine.ts";
import { type CatalogSource, pinAsOf, runAsOf, type VersionFound, versionSubject } from "../answer-query.ts";
import { type MemoryDisk, rowsIn } from "./disk.ts";

type RowOf<T extends Table> = Extract<Row, { table: T }>;

export function createMemorySource(disk: MemoryDisk, asOf: LogIndex): CatalogSource {
  const all = <T extends Table>(table: T, which: (row: RowOf<T>) => boolean = () => true): RowOf<T>[] =>
    ([...rowsIn(disk, table).values()] as RowOf<T>[]).filter(which);
  const versionsOf = (dataset: string): VersionRow[] =>
    all("version", (row) => row.dataset === dataset && row.index <= asOf).toSorted((a, b) => a.version - b.version);
  const revocation = (subject: string): RevocationRow | null =>
    all("revocation", (row) => row.subject === subject && row.index <= asOf)[0] ?? null;
  const found = (row: VersionRow): VersionFound => ({
    row,
    revocation: revocation(versionSubject(row.dataset, row.version)),
  });
  const movesOf = (dataset: string) =>
    all("tag_move", (row) => row.dataset === dataset && row.index <= asOf).toSorted((a, b) => a.index - b.index);
  const tagsOf = (dataset: string): TagRow[] => {
    const latest = new Map<string, TagRow>();
    for (const { tag, toVersion: version, index } of movesOf(dataset))
      latest.set(tag, { table: "tag", dataset, tag, version, index });
    return sorted([...latest.values()], (row) => row.tag);
  };
  const pagesOf = (dataset: string, version: number, where: (position: number) => boolean) =>
    all(
      "version_page",
      (row) =>
        row.dataset === dataset &&
        where(row.position) &&
        row.fromVersion <= version &&
        (row.untilVersion === null || row.untilVersion > version),
    );
  const datasetsAll = () =>
    sorted(
      all("dataset", (row) => row.createdIndex <= asOf).flatMap((row) => {
        const head = versionsOf(row.name).at(-1);
        return head ? [{ ...row, headVersion: head.version, headIndex: head.index, headRoot: head.root }] : [];
      }),
      (row) => row.name,
    );
  return {
    version: (dataset, target) => {
      const versions = versionsOf(dataset);
      const tagged = target.kind === "tag" ? tagsOf(dataset).find((row) => row.tag === target.tag)?.version : undefined;
      const row =
        target.kind === "head"
          ? versions.at(-1)
          : target.kind === "root"
            ? versions.find((version) => version.root === target.root)
            : versions.find(({ version }) => version === (target.kind === "version" ? target.version : tagged));
      return row ? found(row) : null;
    },
    dataset: (name) => datasetsAll().find((row) => row.name === name) ?? null,
    datasets: (after, limit) =>
      datasetsAll()
        .filter((row) => row.name > after)
        .slice(0, limit),
    versions: (dataset, after, limit) =>
      versionsOf(dataset)
        .filter((row) => row.version > after)
        .slice(0, limit)
        .map(found),
    pages: (dataset, version, from, limit) =>
      pagesOf(dataset, version, (position) => position >= from)
        .toSorted((a, b) => a.position - b.position)
        .slice(0, limit),
    frontierBefore: (dataset, version, at) =>
      pagesOf(dataset, version, (position) => position === at)[0]?.frontierBefore ?? null,
    object: (digest) => all("page", (row) => row.digest === digest && row.putIndex <= asOf)[0] ?? null,
    tags: (dataset, limit) => tagsOf(dataset).slice(0, limit),
    tagMoves: (dataset, after, limit) =>
      movesOf(dataset)
        .filter((row) => row.index > after)
        .slice(0, limit),
    run: (run) => all("run", (row) => row.run === run && row.index <= asOf).map((row) => runAsOf(row, asOf))[0] ?? null,
    receipts: (run, after, limit) =>
      all("receipt", (row) => row.run === run && row.index > after && row.index <= asOf)
        .toSorted((a, b) => a.index - b.index)
        .slice(0, limit),
    newestReceipts: (run, limit) =>
      all("receipt", (row) => row.run === run && row.index <= asOf)
        .toSorted((a, b) => b.index - a.index)
        .slice(0, limit),
    runs: (dataset, after, limit) =>
      sorted(
        all(
          "run",
          ({ run, plan, index }) => run > after && index <= asOf && (dataset ?? plan.dataset) === plan.dataset,
        ),
        (row) => row.run,
      )
        .slice(0, limit)
        .map((row) => runAsOf(row, asOf)),
    runEpochs: (run, after, limit) =>
      all("run_epoch", (row) => row.run === run && row.epoch > after && row.index <= asOf)
        .toSorted((a, b) => a.epoch - b.epoch)
        .slice(0, limit),
    pins: (dataset, run, limit) => {
      const latest = new Map<string, PinRow>();
      const taken = all(
        "pin",
        (row) => row.index <= asOf && (dataset ?? row.dataset) === row.dataset && (run ?? row.run) === row.run,
      );
      for (const row of taken.toSorted((a, b) => a.index - b.index)) latest.set(`${row.dataset}\n${row.run}`, row);
      return sorted([...latest.values()], (row) => `${row.dataset}\n${row.run}`)
        .slice(0, limit)
        .map((row) => pinAsOf(row, asOf));
    },
    revocations: (dataset, limit) =>
      all("revocation", (row) => row.subject.startsWith(`${dataset}@`) && row.index <= asOf)
        .toSorted((a, b) => a.index - b.index)
        .slice(0, limit),
    revoked: (subjects) => {
      const wanted = new Set(subjects);
      return all("revocation", (row) => wanted.has(row.subject) && row.index <= asOf);
    },
    revocationsSince: (after, limit) =>
      all("revocation", (row) => row.index > after && row.index <= asOf)
        .toSorted((a, b) => a.index - b.index)
        .slice(0, limit),
    ledger: (after, limit) => disk.ledger.slice(after, Math.min(after + limit, asOf)),
    configurations: (after, limit) =>
      disk.ledger
        .slice(after, asOf)
        .filter((row) => row.kind === "config" || (row.kind === "configuration.sign" && row.commandId !== null))
        .slice(0, limit),
    ledgerOf: (commandId) => {
      const row = disk.outcomes.get(commandId);
      return row && row.index <= asOf ? row : null;
    },
  };
}

/** By the bytes of a key: names are ASCII. */
function sorted<R>(rows: readonly R[], key: (row: R) => string): R[] {
  return rows.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
}
