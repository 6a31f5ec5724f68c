// What an operator's program does with federated identity credentials and the
// management library for JavaScript: it makes some of an identity, reads one,
// lists them two on a page, deletes them, and prints what it saw.
import { DefaultAzureCredential } from "@azure/identity";
import { ManagedServiceIdentityClient } from "@azure/arm-msi";

const [group, identity, issuer] = process.argv.slice(2);
const client = new ManagedServiceIdentityClient(new DefaultAzureCredential(), process.env.AZURE_SUBSCRIPTION_ID, {
  endpoint: `https://${process.env.ARM_METADATA_HOSTNAME}`,
});
const credentials = client.federatedIdentityCredentials;

try {
  const names = ["one", "two", "three", "four", "five"];
  const made = await Promise.all(
    names.map((name) => credentials.createOrUpdate(group, identity, name, { issuer, subject: name, audiences: ["api://AzureADTokenExchange"] })),
  );
  const read = await credentials.get(group, identity, "one");
  const pages = [];
  for await (const page of credentials.list(group, identity, { top: 2 }).byPage()) pages.push(page.map((c) => c.name));
  await Promise.all(names.map((name) => credentials.delete(group, identity, name)));
  const after = [];
  for await (const c of credentials.list(group, identity)) after.push(c.name);
  console.log(JSON.stringify({ made: made.length, read, pages, after }));
} catch (err) {
  console.error(String(err));
  process.exit(1);
}
