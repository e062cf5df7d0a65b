/**
 * Owns `shardpact member`: which of its verbs is meant; each has its own file below `member/`.
 */
import type { Command } from "commander";
import * as add from "./member/add.ts";
import * as list from "./member/list.ts";
import * as promote from "./member/promote.ts";
import * as remove from "./member/remove.ts";
import * as replace from "./member/replace.ts";

const EXAMPLES = `
Examples:
  $ shardpact member list
  $ shardpact member add r4 --postgres 'postgres://shardpact:{password}@db-{id}:5432/shardpact'
  $ shardpact member promote r4
  $ shardpact member replace r2 r4          # r2 is dead, r4 a learner that has caught up
  $ shardpact member remove r1

All but list are signed with the key of a voter, found in the group's folder (--dir).`;

export function register(command: Command): void {
  list.register(command.command("list").description("show voters, learners and how far each is"));
  add.register(command.command("add").description("make a new replica's files, and let it learn"));
  promote.register(command.command("promote").description("make a learner a voter"));
  remove.register(command.command("remove").description("let a voter or a learner go"));
  replace.register(command.command("replace").description("give a voter's place to a learner"));
  command.addHelpText("after", EXAMPLES);
}
