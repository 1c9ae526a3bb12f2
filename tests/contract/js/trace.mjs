// Sends one trace with the published JavaScript SDK and prints its ids: URL, project.
import { Client, RunTree } from "langsmith";
import { traceable } from "langsmith/traceable";

const [url, project] = process.argv.slice(2);
const client = new Client({ apiUrl: url, apiKey: "any" });

const leaf = traceable(
  async (word) => {
    if (word === "bad") throw new Error("it broke");
    return word.toUpperCase();
  },
  { name: "leaf", run_type: "tool", client, project_name: project, tracingEnabled: true },
);

const root = traceable(
  async (words) => {
    const found = [];
    for (const word of words) {
      try {
        found.push(await leaf(word));
      } catch {
        found.push("?");
      }
    }
    return found.join(" ");
  },
  { name: "root", run_type: "chain", tags: ["js"], metadata: { emoji: "☃" }, client, project_name: project, tracingEnabled: true },
);

const answer = await root(["good", "bad"]);

const byHand = new RunTree({
  name: "by hand",
  run_type: "llm",
  inputs: { question: "?" },
  attachments: { file: ["text/plain", new TextEncoder().encode("from JavaScript")] },
  project_name: project,
  client,
  tracingEnabled: true,
});
await byHand.postRun();
await byHand.end({ answer: "!" });
await byHand.patchRun();
await client.awaitPendingTraceBatches();

const listed = [];
for await (const run of client.listRuns({ projectName: project })) listed.push(run.name);

const sessionId = (await client.readProject({ projectName: project })).id;
const given = await client.createFeedback(byHand.id, "quality", { score: 0.5, value: "fair", comment: "☃", sessionId });
const gone = await client.createFeedback(byHand.id, "gone", { score: true, sessionId });
await client.updateFeedback(given.id, { score: 1 });
await client.deleteFeedback(gone.id);
const feedback = [];
for await (const record of client.listFeedback({ runIds: [byHand.id] })) feedback.push(record);
const read = await client.readFeedback(given.id);

console.log(JSON.stringify({ answer, byHand: byHand.id, listed: listed.sort(), feedback, read }));
