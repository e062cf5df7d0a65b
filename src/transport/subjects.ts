/**
 * Owns how a subject matches a pattern: tokens between dots, `*` for one token, a last `>` for one or more.
 */

/** True when `subject` (no wildcards) is matched by `pattern`. */
export function subjectMatches(pattern: string, subject: string): boolean {
  const wanted = pattern.split(".");
  const tokens = subject.split(".");
  for (const [i, want] of wanted.entries()) {
    if (want === ">" && i === wanted.length - 1) return tokens.length > i;
    const token = tokens[i];
    if (token === undefined || (want !== "*" && want !== token)) return false;
  }
  return tokens.length === wanted.length;
}
