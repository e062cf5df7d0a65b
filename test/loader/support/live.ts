/**
 * A dataset that grows while loaders run, without a group: what `client/run-calls.ts` would answer, by the rules of
 * `catalog/epoch-cut.ts` as far as loaders can tell.
 */
import type { ConfirmedVersion, Following, RunEpoch } from "../../../src/client/types.ts";
import { canonicalJson } from "../../../src/model/commands.ts";
import { ShardpactError } from "../../../src/model/errors.ts";
import { makeVersion, type TestVersion, type TestVersionOptions } from "./version.ts";

export interface LiveDataset extends AsyncDisposable {
  /** Publishes the next version, which is the head from now on. */
  publish(o: TestVersionOptions): Promise<TestVersion>;
  /** As `open` would give it. */
  at(version: number): ConfirmedVersion;
  /** What runs agreed on, by `run epoch`. */
  readonly epochs: ReadonlyMap<string, RunEpoch>;
  readonly proposals: RunEpoch[];
  readonly revoked: Set<number>;
  /** Called before each question to the group, which fails as it does. */
  onAsk: (what: keyof Following) => void | Promise<void>;
}

export function liveDataset(): LiveDataset {
  const made: TestVersion[] = [];
  const epochs = new Map<string, RunEpoch>();
  const at = (number: number): ConfirmedVersion => {
    const found = made[number - 1]?.version;
    if (!found) throw new ShardpactError("not_found", `there is no v${number}`);
    if (live.revoked.has(number)) throw new ShardpactError("revoked", `things@v${number} was revoked`);
    return found;
  };
  const following: Following = {
    async agreed(run, epoch) {
      await live.onAsk("agreed");
      return epochs.get(`${run} ${epoch}`) ?? null;
    },
    async propose(run, next) {
      await live.onAsk("propose");
      live.proposals.push(next);
      at(next.version);
      if (!epochs.has(`${run} ${next.epoch - 1}`))
        throw new ShardpactError("plan_mismatch", `no epoch ${next.epoch - 1} of ${run}`);
      if (!epochs.has(`${run} ${next.epoch}`)) epochs.set(`${run} ${next.epoch}`, next);
    },
    async newest() {
      await live.onAsk("newest");
      const numbers = made.map((_, i) => i + 1).filter((number) => !live.revoked.has(number));
      return at(numbers.at(-1) ?? made.length);
    },
    async open({ version }) {
      await live.onAsk("open");
      return at(version);
    },
  };
  const live: LiveDataset = {
    at,
    epochs,
    proposals: [],
    revoked: new Set(),
    onAsk: () => undefined,
    async publish(o) {
      const number = made.length + 1;
      const base = await makeVersion(o);
      const version: ConfirmedVersion = {
        ...base.version,
        version: number,
        confirmation: { ...base.version.confirmation, index: 7 + number },
        following,
        async beginRun(run, plan, meta, epoch) {
          await base.version.beginRun(run, plan, meta, epoch);
          if (!plan.follow || epoch === undefined) return;
          const row = { epoch, version: plan.version, root: plan.root, order: plan.order };
          const key = `${run} ${epoch}`;
          if (![...epochs.keys()].some((known) => known.startsWith(`${run} `))) epochs.set(key, row);
          const isSame = canonicalJson(epochs.get(key) ?? null) === canonicalJson(row);
          if (!isSame) throw new ShardpactError("plan_mismatch", `run '${run}' is elsewhere in epoch ${epoch}`);
        },
      };
      made.push({ ...base, version });
      return made.at(-1) as TestVersion;
    },
    async [Symbol.asyncDispose]() {
      for (const version of made) await version.close();
    },
  };
  return live;
}
