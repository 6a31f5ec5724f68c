// A long-running program: one credential and one client for its whole life. It
// reads names of secrets and answers in JSON, as programs/holder does.
import { createInterface } from "node:readline";
import { DefaultAzureCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const inner = new DefaultAzureCredential();
let tokens = 0;
const credential = {
  getToken(scopes, options) {
    tokens++;
    return inner.getToken(scopes, options);
  },
};
const client = new SecretClient(process.env.VAULT_URL, credential);

for await (const name of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { value: (await client.getSecret(name)).value };
  } catch (err) {
    answer = { status: err.statusCode, error: String(err) };
  }
  console.log(JSON.stringify({ ...answer, tokens }));
}
