// What a ranker does with candidates: 100 users in one batch, with a deadline, and each kind of error.
import { createClient } from "../dist/node.js";

export async function rank(address) {
  const client = createClient(address, { deadline: 10_000 });
  const batch = Array.from({ length: 100 }, (_, i) => ({ userId: `user-${String(i + 10).padStart(7, "0")}`, k: 10 }));
  let ranked = 0, popular = 0;
  try {
    const results = await client.batchRetrieve(batch); // a TandemError: temporary and retryAfter say whether to try later
    for (const [i, { response, error }] of results.entries()) {
      if (response) ranked += response.candidates.length === 10;
      else if (error.reason === "ENTITY_UNKNOWN") popular++; // a new user
      else if (error.mistake) throw error; // ours: error.fields say where
      else console.log(batch[i].userId, error.reason); // temporary, or a failure of the server: for the next time
    }
  } finally {
    client.close();
  }
  return { ranked, popular };
}
