/** Generous: machines that test are busy. */
export const DEADLINE = 60_000;

/** Asks until the answer is truthy, and gives it. */
export async function eventually(what, ask, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  let last;
  for (;;) {
    try {
      last = await ask();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${deadline / 1000} s; the last was ${last?.stack ?? JSON.stringify(last)}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
