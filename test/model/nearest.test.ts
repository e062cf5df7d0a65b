import { expect, it } from "vitest";
import { nearestNames } from "../../src/model/nearest.ts";

it.each<[string, string[], string[]]>([
  ["minst", ["mnist", "cifar-10", "mnist-test"], ["mnist"]],
  ["mnist", ["mnist-test", "mnist-train", "imagenet"], ["mnist-test", "mnist-train"]],
  ["flihgts", ["flights", "flight"], ["flights"]],
  ["a", ["x", "b", "c", "d"], ["b", "c", "d"]],
  ["weather", [], []],
  ["", ["a-long-name"], []],
  ["same", ["same", "same"], ["same"]],
])("near '%s' among %j: %j", (wanted, names, near) => {
  expect(nearestNames(wanted, names)).toEqual(near);
});

it("gives as many as asked for, and a stranger's long name costs little", () => {
  expect(nearestNames("a", ["b", "c", "d"], 1)).toEqual(["b"]);
  expect(nearestNames("x".repeat(1e6), ["y".repeat(1e6)])).toHaveLength(1);
});
