/**
 * Owns what a version may not change against the head that it follows: schema, splits, split rule, class indices.
 *
 * Kept pages name splits by ordinal and runs name classes by index, so both lists may only grow at their end.
 */
import { decodeClasses, firstColumnNotAppended } from "../merkle/classes.ts";
import { canonicalJson } from "../model/commands.ts";
import type { CommandBody } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import type { VersionRow } from "./rows.ts";
import type { View } from "./view.ts";

type Body = CommandBody<"version.commit">;

/** @throws `schema_differs`, `split_changed` */
export function requireLineage(view: View, body: Body, head: VersionRow | null): void {
  if (!head) return;
  const { dataset } = body;
  if (head.schema !== body.schema) {
    throw new ShardpactError("schema_differs", `the schema differs from that of ${dataset}@v${head.version}`, {
      details: { dataset, expected: head.schema, got: body.schema },
      hint: "Publish under another dataset name.",
    });
  }
  if (canonicalJson(head.splitRule) !== canonicalJson(body.splitRule)) {
    throw new ShardpactError("split_changed", `${dataset} has another split rule`, {
      details: { dataset, expected: head.splitRule, got: body.splitRule },
      hint: "Rows would move between splits: publish under another dataset name.",
    });
  }
  if (head.splits.some((name, ordinal) => body.splits[ordinal] !== name)) {
    throw new ShardpactError("split_changed", `the splits of ${dataset} may only be added to`, {
      details: { dataset, expected: head.splits, got: body.splits },
    });
  }
  if (head.classes === body.classes) return;
  const column = firstColumnNotAppended(decodeClasses(view.classesOf(head)), decodeClasses(view.bytes(body.classes)));
  if (column !== null) {
    throw new ShardpactError("schema_differs", `the classes of '${column}' in ${dataset} may only be appended to`, {
      details: { dataset, column },
      hint: "Keep the old classes in their order and add new ones at the end.",
    });
  }
}
