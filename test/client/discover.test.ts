import { describe, expect, it } from "vitest";
import { encodeApi, SUBJECTS } from "../../src/model/api.ts";
import { discover } from "../../src/client/discover.ts";
import { REAL_TIMING } from "../../src/client/timing.ts";
import { startResponders, type Responders } from "./responders.ts";

/** Replies of a second group on the first one's bus. */
function joinBus(group: Responders, other: Responders): void {
  for (const replica of other.replicas) {
    const transport = group.bus.connect(`other-${replica.id}`);
    transport.subscribe(SUBJECTS.discover, ({ reply }) => {
      const { genesis, groupId, leader } = other;
      const value = { group: genesis.name, groupId, replica: replica.id, leader, genesis, stores: [] };
      if (reply) transport.publish(reply, encodeApi(value));
    });
  }
}

const client = (group: Responders) => group.bus.connect("client");

describe("discover", () => {
  it("finds the only group, its leader and its stores", async () => {
    const group = startResponders(3);
    const found = await discover(client(group), REAL_TIMING, { timeoutMs: 1_000 });
    expect(found).toMatchObject({ group: "test", groupId: group.groupId, leader: "r1" });
    expect(found.stores).toEqual(["file:///stores/r1", "file:///stores/r2", "file:///stores/r3"]);
  });

  it("asks for a name when several groups answer, and takes the named one", async () => {
    const group = startResponders(3, "alpha");
    joinBus(group, startResponders(1, "beta"));
    await expect(discover(client(group), REAL_TIMING, { timeoutMs: 1_000 })).rejects.toMatchObject({
      code: "config_invalid",
      details: { groups: ["alpha", "beta"] },
    });
    const beta = await discover(client(group), REAL_TIMING, { timeoutMs: 1_000, group: "beta" });
    expect(beta.group).toBe("beta");
    await expect(discover(client(group), REAL_TIMING, { timeoutMs: 300, group: "gamma" })).rejects.toMatchObject({
      code: "not_found",
      details: { nearest: ["alpha", "beta"] },
    });
  });

  it("is group_forked when the name answers with another id than the pinned one", async () => {
    const group = startResponders(3);
    const groupId = startResponders(3).groupId;
    const options = { timeoutMs: 400, group: "test", groupId };
    await expect(discover(client(group), REAL_TIMING, options)).rejects.toMatchObject({ code: "group_forked" });
  });

  it("ignores a genesis that does not hash to its id", async () => {
    const group = startResponders(1);
    const liar = group.bus.connect("liar");
    liar.subscribe(SUBJECTS.discover, ({ reply }) => {
      const { genesis, groupId } = group;
      const forged = { ...genesis, voters: [{ id: "r1", publicKey: "0".repeat(64) }] };
      const value = { group: "test", groupId, replica: "r1", leader: "r1", genesis: forged, stores: ["file:///evil"] };
      if (reply) liar.publish(reply, encodeApi(value));
    });
    const found = await discover(client(group), REAL_TIMING, { timeoutMs: 1_000 });
    expect(found.genesis).toEqual(group.genesis);
    expect(found.stores).toEqual(["file:///stores/r1"]);
  });

  it("is unavailable when nobody answers", async () => {
    const group = startResponders(1);
    for (const r of group.replicas) r.down = true;
    await expect(discover(client(group), REAL_TIMING, { timeoutMs: 200 })).rejects.toMatchObject({
      code: "unavailable",
    });
  });
});
