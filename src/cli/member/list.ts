/**
 * Owns `shardpact member list`: who decides, who only receives, and how far each is.
 */
import type { Command } from "commander";
import { askGroup } from "../../client/admin.ts";
import { ShardpactError } from "../../model/errors.ts";
import { roleIn } from "../../model/group.ts";
import { type Context, type GroupOptions, inGroup, withGroupOptions } from "../context.ts";
import { table } from "../output.ts";
import { membershipText } from "./change.ts";

export function register(command: Command): void {
  withGroupOptions(command).action((o: GroupOptions) => inGroup(o, list));
}

async function list({ session, out }: Context): Promise<void> {
  const found = await askGroup(session);
  const answers = [...found.values()].filter((status) => status !== null && status.configuration !== null);
  // The newest that anybody knows; what is not committed yet says so.
  const newest = answers.toSorted((a, b) => (b?.configuration?.number ?? 0) - (a?.configuration?.number ?? 0))[0];
  const configuration = newest?.configuration;
  if (!newest || !configuration) {
    throw new ShardpactError("unavailable", `no replica of group ${session.group} answers`, {
      hint: "`shardpact status` asks the same; are the replicas running?",
    });
  }
  const keyOf = new Map(
    [...configuration.voters, ...configuration.votersOutgoing, ...configuration.learners].map((m) => [
      m.id,
      m.publicKey,
    ]),
  );
  const members = [...new Set([...keyOf.keys(), ...found.keys()])].map((id) => {
    const status = found.get(id) ?? null;
    const leaves = !configuration.voters.some((m) => m.id === id) && roleIn(configuration, id) === "voter";
    const member = leaves ? "leaving" : roleIn(configuration, id);
    const { state = "unreachable", applied = null, leader = null } = status ?? {};
    return { id, member, state, leads: leader === id, applied, publicKey: keyOf.get(id) ?? null };
  });
  out.data({ group: session.group, groupId: session.groupId, configuration, members });
  out.line(membershipText(configuration) + (configuration.applied ? "" : " · not complete yet"));
  out.line("");
  const rows = members.map(({ id, member, state, leads, applied }) => [
    id,
    leads ? `${member}, leads` : member,
    state,
    applied === null ? "" : String(applied),
  ]);
  out.line(table(["replica", "member", "state", "applied"], rows));
}
