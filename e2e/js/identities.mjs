// What an operator's program does with the management library for JavaScript:
// it makes a user-assigned identity, reads it, finds it in the list, deletes
// it, and prints what it saw. Run it as a workload that may.
import { DefaultAzureCredential } from "@azure/identity";
import { ManagedServiceIdentityClient } from "@azure/arm-msi";

const [group, name] = process.argv.slice(2);
const client = new ManagedServiceIdentityClient(new DefaultAzureCredential(), process.env.AZURE_SUBSCRIPTION_ID, {
  endpoint: `https://${process.env.ARM_METADATA_HOSTNAME}`,
});
const identities = client.userAssignedIdentities;

async function names() {
  const out = [];
  for await (const identity of identities.listByResourceGroup(group)) out.push(identity.name);
  return out;
}

try {
  const made = await identities.createOrUpdate(group, name, { location: "local", tags: { made: "here" } });
  const read = await identities.get(group, name);
  const during = await names();
  await identities.delete(group, name);
  console.log(JSON.stringify({ made, read, during, after: await names() }));
} catch (err) {
  console.error(String(err));
  process.exit(1);
}
