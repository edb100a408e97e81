// All tests in one process: they share one system and one browser, and keep apart by workspace.

import { after, before } from "node:test";
import { closeBrowser } from "./support/browser.js";
import { startSystem, stopSystem } from "./support/system.js";

// A hook that fails makes node list every test as failing, those too that were not asked for: so it is said once.
const giveUp = (error) => {
  console.error(error);
  process.exit(1);
};

before(() => startSystem().catch(giveUp), { timeout: 120_000 });
after(async () => {
  await closeBrowser();
  await stopSystem();
});

await import("./pure.test.js");
await import("./key.test.js");
await import("./leads.test.js");
await import("./layout.test.js");
await import("./weight.test.js");
// The pictures show a service that is well, which the next ones leave in need of a look.
await import("./screenshots.test.js");
await import("./projection.test.js");
await import("./outages.test.js");
