/**
 * Owns what the steps of several attempts add up to: which attempt's step the model holds, and the rows it was trained on.
 */
interface Step {
  readonly step: number;
  readonly ids: readonly number[];
}

export interface Logbook {
  /** A step that a worker of the attempt applied. @throws when it was told with other rows before */
  add(attempt: number, step: Step): void;
  /** Rows that the model saw, in order. */
  ids(): number[];
  story(): string[];
}

export function createLogbook(): Logbook {
  /** By step: its rows, and the attempts that applied it; the model holds what the last of them made of it. */
  const steps = new Map<number, { readonly ids: readonly number[]; readonly attempts: Set<number> }>();
  const inOrder = () => [...steps].sort(([a], [b]) => a - b);
  return {
    add(attempt, { step, ids }) {
      const known = steps.get(step) ?? { ids, attempts: new Set() };
      if (known.ids.join() !== ids.join()) throw new Error(`step ${step} was trained on other rows before`);
      known.attempts.add(attempt);
      steps.set(step, known);
    },
    ids: () => inOrder().flatMap(([, { ids }]) => ids),
    story() {
      const held = new Map<number, number[]>();
      for (const [step, { attempts }] of inOrder()) {
        const last = Math.max(...attempts);
        held.set(last, [...(held.get(last) ?? []), step]);
      }
      const again = inOrder().flatMap(([step, { attempts }]) => (attempts.size > 1 ? [step] : []));
      return [
        ...[...held].map(([attempt, own]) => `the model holds steps ${own[0]} to ${own.at(-1)} of attempt ${attempt}`),
        ...(again.length === 0
          ? []
          : [`after the last checkpoint, so trained again, on the same rows: ${again.join(", ")}`]),
      ];
    },
  };
}
