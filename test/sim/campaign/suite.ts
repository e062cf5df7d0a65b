/**
 * Owns what CI asks of one engine: minutes of seeds, and the bugs that few seeds find. One file for each engine, so that
 * both run at the same time.
 */
import { describe, expect, it } from "vitest";
import type { EngineName } from "../engines.ts";
import { tryMutation } from "../gate.ts";
import { MUTATIONS } from "../mutations/index.ts";
import { describeCampaign, runCampaign, shortcomings } from "./campaign.ts";

/** Of seeds, for each engine; another time by `SHARDPACT_SIM_SECONDS`. */
const BUDGET_SECONDS = Number(process.env["SHARDPACT_SIM_SECONDS"] ?? 300);
/** Of seeds with ranks of runs that follow a dataset. */
const RANKS_SECONDS = BUDGET_SECONDS / 10;
/** That ranks come to in the median seed. */
const RANK_EPOCHS_MIN = 50;
/** A machine that is this slow needs a longer budget, not fewer seeds. */
const SEEDS_MIN = 40;
/** A bug that takes at most this many seeds is tried in CI; `npm run sim -- --mutations` tries all. */
const QUICK_SEEDS_MAX = 20;

export function engineSuite(engine: EngineName): void {
  describe(`whole clusters under ${engine}`, () => {
    it("keep every invariant, recover and stay linearizable", { timeout: 1_800_000 }, async () => {
      const campaign = await runCampaign({ engine, budgetMs: BUDGET_SECONDS * 1000, seedsMin: SEEDS_MIN });
      console.log(describeCampaign(campaign));
      expect(shortcomings(campaign)).toEqual([]);
    });

    it("give all ranks of a run one version an epoch (I70)", { timeout: 900_000 }, async () => {
      const campaign = await runCampaign({ engine, budgetMs: RANKS_SECONDS * 1000, seedsMin: 4, from: 1, ranks: true });
      console.log(describeCampaign(campaign));
      // A storm may leave a group no time for any; the median one leaves plenty.
      const epochs = campaign.reports.map(({ rankEpochs }) => rankEpochs).toSorted((x, y) => x - y);
      expect(epochs[Math.floor(epochs.length / 2)]).toBeGreaterThanOrEqual(RANK_EPOCHS_MIN);
    });

    const quick = MUTATIONS[engine].filter(({ seedsMax }) => seedsMax <= QUICK_SEEDS_MAX);
    it.each(quick.map((mutation) => [mutation.name, mutation] as const))(
      "a simulator that is worth something finds %s",
      { timeout: 300_000 },
      async (_, mutation) => {
        const { seed, what } = await tryMutation({ engine, mutation });
        expect(seed, what).not.toBeNull();
      },
    );
  });
}
