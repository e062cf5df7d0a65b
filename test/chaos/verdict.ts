/**
 * Owns the judgement after healing: the replicas' databases against each other and against their own ledgers, what
 * clients were told against the ledger, and every dataset's history against a sequential explanation.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type AuditReport, auditVerify } from "../../src/storage/postgres/audit.ts";
import { datasetModel, type Output } from "../sim/dataset-model.ts";
import { checkLinearizable } from "../sim/linearizability.ts";
import { sql, waitForAgreement } from "../support/group.ts";
import type { Cluster } from "./cluster.ts";
import type { Recorded } from "./history.ts";

const AGREEMENT_TIMEOUT_MS = 120_000;
const FINDINGS_MAX = 5;
const AUDITS_MAX = 5;
const POLL_MS = 100;

export interface Verdict {
  /** Acknowledged to a client, and not in the ledger. */
  readonly lost: readonly string[];
  /** Everything else that must not be. */
  readonly wrong: readonly string[];
  readonly index: number;
}

/** What a command id came to. */
export interface LedgerRow {
  readonly index: number;
  readonly ok: boolean;
  readonly version: number;
}

/** By command id. */
export type Ledger = ReadonlyMap<string, LedgerRow>;

/** @throws Error when the replicas don't come to the same point in time */
export async function judge(cluster: Cluster, operations: readonly Recorded[]): Promise<Verdict> {
  const { index, wrong: audited } = await auditAll(cluster);
  const { lost, wrong } = judgeHistory(operations, await readLedger(cluster));
  return { lost, wrong: [...audited, ...wrong], index };
}

/** What clients saw against what the group agreed on. Pure. */
export function judgeHistory(operations: readonly Recorded[], ledger: Ledger): Pick<Verdict, "lost" | "wrong"> {
  const { lost, wrong } = compare(operations, ledger);
  const history = notLinearizable(settle(operations, ledger));
  return { lost, wrong: [...wrong, ...unanswered(operations), ...outOfOrder(operations), ...history] };
}

/** Every replica votes, all stand at one point, and every table of every database is what its ledger leads to. */
async function auditAll(cluster: Cluster): Promise<Pick<Verdict, "index" | "wrong">> {
  const local = { ...cluster.local, replicas: cluster.replicas() };
  const endMs = performance.now() + AGREEMENT_TIMEOUT_MS;
  let aside = await notVoting(cluster);
  while (aside.length > 0 && performance.now() < endMs) {
    await sleep(POLL_MS);
    aside = await notVoting(cluster);
  }
  for (let n = 1; ; n++) {
    const agreed = await waitForAgreement(local, AGREEMENT_TIMEOUT_MS);
    const reports = await Promise.all(
      local.replicas.map(({ postgresUrl }) => auditVerify(postgresUrl, { findingsMax: FINDINGS_MAX })),
    );
    // The group speaks without being asked, too: of a new leader, of a configuration that was signed.
    const movedOn = reports.some(({ applied }) => applied.index !== agreed.index);
    if (movedOn && n < AUDITS_MAX) continue;
    const wrong = local.replicas.flatMap(({ id }, i) => {
      const { applied, findings } = reports[i] as AuditReport;
      const found = findings.map(({ table, row, problem }) => `${id}: ${table} ${row}: ${problem}`);
      const same = applied.index === agreed.index && applied.chain === agreed.chain;
      if (!same) found.push(`${id}: its ledger leads to ${applied.index} ${applied.chain}, not to ${agreed.index}`);
      return found;
    });
    return { index: agreed.index, wrong: [...aside, ...wrong] };
  }
}

/** Who isn't a voter that works, and why. */
async function notVoting(cluster: Cluster): Promise<string[]> {
  const statuses = await cluster.statuses();
  return cluster.replicas().flatMap(({ id }, i) => {
    const status = statuses[i];
    const votes = status?.state === "running" && status.member === "voter";
    return votes ? [] : [`${id} is ${status?.state ?? "silent"}, ${status?.member}: ${status?.reason ?? ""}`];
  });
}

/** All replicas have the same chain, so one is asked. */
async function readLedger(cluster: Cluster): Promise<Ledger> {
  const rows = await sql(
    cluster.replicas()[0]?.postgresUrl ?? "",
    `select index::int, command_id, outcome->>'ok' = 'true' as ok, (outcome->'result'->>'version')::int as version
     from shardpact.ledger where command_id is not null order by index`,
  );
  const ledger = new Map<string, LedgerRow>();
  for (const { index, command_id: id, ok, version } of rows) {
    // The table's unique index says so too; an audit believes nobody.
    if (ledger.has(String(id))) throw new Error(`command ${String(id)} is in the ledger twice`);
    ledger.set(String(id), { index: Number(index), ok: ok === true, version: Number(version ?? 0) });
  }
  return ledger;
}

/** What clients were told of their commands against what the ledger says of them. */
function compare(operations: readonly Recorded[], ledger: Ledger): Pick<Verdict, "lost" | "wrong"> {
  const lost: string[] = [];
  const wrong: string[] = [];
  for (const operation of operations) {
    const { commandId, output, index, neverSent } = operation;
    if (commandId === null) continue;
    const row = ledger.get(commandId);
    const text = JSON.stringify(operation);
    if (output === null) {
      if (neverSent && row !== undefined) wrong.push(`was never sent, says its client; it was applied: ${text}`);
    } else if (row === undefined) {
      lost.push(text);
    } else if (row.ok !== (output.kind === "ok") || (index !== null && index !== row.index)) {
      wrong.push(`the ledger has another answer (${JSON.stringify(row)}): ${text}`);
    }
  }
  return { lost, wrong };
}

function unanswered(operations: readonly Recorded[]): string[] {
  return operations
    .filter(({ last, output }) => last && output === null)
    .map((operation) => `not answered after healing: ${JSON.stringify(operation)}`);
}

/** I8: an answer is never older than what anybody had been answered before it was asked for. */
function outOfOrder(operations: readonly Recorded[]): string[] {
  const answered = operations.filter(({ index, returnMs }) => index !== null && returnMs !== null);
  const returns = answered.toSorted((a, b) => (a.returnMs ?? 0) - (b.returnMs ?? 0));
  const wrong: string[] = [];
  let floor = 0;
  let at = 0;
  for (const operation of answered.toSorted((a, b) => a.callMs - b.callMs)) {
    for (; (returns[at]?.returnMs ?? Infinity) < operation.callMs; at++)
      floor = Math.max(floor, returns[at]?.index ?? 0);
    if ((operation.index ?? 0) < floor) wrong.push(`I8 ${floor} was answered before: ${JSON.stringify(operation)}`);
  }
  return wrong;
}

/** What nobody was answered: without an effect it is left out; else it stays open, with what it came to. */
function settle(operations: readonly Recorded[], ledger: Ledger): Recorded[] {
  return operations.flatMap((operation) => {
    if (operation.output !== null) return [operation];
    const row = operation.commandId === null ? undefined : ledger.get(operation.commandId);
    if (row?.ok !== true) return [];
    const root = operation.input.kind === "commit" ? operation.input.root : "";
    const output: Output = { kind: "ok", version: row.version, root };
    return [{ ...operation, output }];
  });
}

function notLinearizable(operations: readonly Recorded[]): string[] {
  return [...new Set(operations.map(({ dataset }) => dataset))].flatMap((dataset) => {
    const ofDataset = operations.filter((operation) => operation.dataset === dataset);
    const { result, longest, explored } = checkLinearizable(datasetModel, ofDataset);
    if (result === "linearizable") return [];
    const done = new Set(longest);
    const rest = ofDataset.filter((_, at) => !done.has(at)).slice(0, FINDINGS_MAX);
    const shown = rest.map((operation) => JSON.stringify(operation)).join("\n    ");
    return [`${dataset} is not linearizable (${result}, ${explored} states); not explained:\n    ${shown}`];
  });
}
