/**
 * Owns the cursor: `LoaderState`, where training stands, and the refusal to resume under another order.
 *
 * The offset counts acknowledged *global* samples of the epoch: no world size, no batch size, no batch index. States of all
 * ranks at the same step are equal but for `attempt`, so any one of them can be saved.
 */
import { z } from "zod";
import type { ConfirmedVersion } from "../client/types.ts";
import { hashBytes } from "../merkle/hash.ts";
import { formatDigest, utf8, type Digest } from "../model/bytes.ts";
import { canonicalJson, orderSpec } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import type { LoaderPlan } from "./plan.ts";

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();

export const loaderState = z.strictObject({
  v: z.literal(1),
  group: z.string(),
  dataset: z.string(),
  root: digest,
  /** Log index and chain at which the version was confirmed. */
  at: z.tuple([count, z.string()]),
  selection: digest,
  order: orderSpec,
  last: z.enum(["partial", "drop", "pad"]),
  epoch: count,
  offset: count,
  /** A UUID for each start of a training process. */
  attempt: z.string(),
  /** Digest (`stateDigest`) of the state that this attempt resumed from. */
  parent: digest.nullable(),
});
export type LoaderState = z.infer<typeof loaderState>;

/** Identifies a state, and with it the receipt that holds it: BLAKE3 of its canonical JSON. */
export function stateDigest(state: LoaderState): Digest {
  return formatDigest(hashBytes(utf8(canonicalJson(state))));
}

/** What a state says of the version whose rows it counts. */
function standingOn(
  { confirmation }: Pick<ConfirmedVersion, "confirmation">,
  { dataset, root, order }: LoaderPlan,
): Pick<LoaderState, "dataset" | "root" | "at" | "order"> {
  return { dataset, root, at: [confirmation.index, confirmation.chain], order };
}

/** The state once rows up to `offset` of its epoch were acknowledged, of this version. */
export function advanced(
  state: LoaderState,
  version: Pick<ConfirmedVersion, "confirmation">,
  plan: LoaderPlan,
  offset: number,
): LoaderState {
  const { index, chain } = version.confirmation;
  const stands =
    state.dataset === plan.dataset &&
    state.root === plan.root &&
    state.order === plan.order &&
    state.at[0] === index &&
    state.at[1] === chain;
  // Nearly always: a second spread would cost more than the whole rest of an acknowledgement.
  return stands ? { ...state, offset } : { ...state, ...standingOn(version, plan), offset };
}

/**
 * The state at the start of an attempt: at zero, or where `resume` stands.
 * @throws ShardpactError `resume_mismatch`, `group_forked` (a state of another group)
 */
export function startState(
  version: Pick<ConfirmedVersion, "confirmation">,
  plan: LoaderPlan,
  attempt: string,
  resume: LoaderState | undefined,
): LoaderState {
  const { groupId } = version.confirmation;
  const from = resume === undefined ? null : checkResume(plan, resume, groupId);
  return {
    v: 1,
    group: groupId,
    ...standingOn(version, plan),
    selection: plan.selection,
    last: plan.last,
    epoch: from?.epoch ?? 0,
    offset: from?.offset ?? 0,
    attempt,
    parent: from === null ? null : stateDigest(from),
  };
}

/** @throws ShardpactError `resume_mismatch` naming the first field that differs, `group_forked` */
function checkResume(plan: LoaderPlan, resume: LoaderState, groupId: string): LoaderState {
  const parsed = loaderState.safeParse(resume);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.join(".") ?? "";
    throw new ShardpactError(
      "resume_mismatch",
      `resume is no loader state: ${field === "" ? "" : `${field}: `}${issue?.message ?? "malformed"}`,
      { details: { field }, hint: "Pass what state() gave, as it was." },
    );
  }
  const state = parsed.data;
  if (state.group !== groupId) {
    throw new ShardpactError("group_forked", `the state was made in group ${state.group}, this is ${groupId}`, {
      details: { expected: state.group, got: groupId },
      hint: "Open the version in the group of the state, or start the run anew in this one.",
    });
  }
  const pairs: readonly (readonly [string, unknown, unknown])[] = [
    ["root", plan.root, state.root],
    ["selection", plan.selection, state.selection],
    ...(Object.keys(plan.order) as (keyof typeof plan.order)[]).map(
      (key) => [`order.${key}`, plan.order[key], state.order[key]] as const,
    ),
  ];
  for (const [field, now, then] of pairs) if (now !== then) throw mismatch(field, now, then, state.dataset);
  if (state.offset > plan.rows) throw mismatch("offset", `at most ${plan.rows}`, state.offset);
  return state;
}

function mismatch(
  field: string,
  now: unknown,
  then: unknown,
  dataset = "the version that the state names",
): ShardpactError {
  return new ShardpactError(
    "resume_mismatch",
    `the state cannot be resumed here: ${field} is ${String(now)}, in the state ${String(then)}`,
    {
      details: { field, now, then },
      hint: `Open ${dataset}, with the split, shuffle and seed that the state was made with.`,
    },
  );
}
