/**
 * Owns `configuration.sign`: a voter's word that a configuration followed the one it voted in.
 *
 * It changes no row: the ledger keeps it, in every replica and every snapshot, for whoever has to prove the membership.
 * The signature is checked at the door and by whoever relies on it, not here: an outcome must be the same in every build.
 */
import { accept, type Rule } from "./rule.ts";

export const configurationSign: Rule<"configuration.sign"> = {
  needs: () => [],
  decide: (_view, { body: { index, replica } }) => accept({ index, replica }),
};
