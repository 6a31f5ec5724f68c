// The program that Innate must not ask to change: the Azure SDK for JavaScript
// with its default credential and no other options. It prints a secret of the
// vault at VAULT_URL: its argument, or greeting.
import { DefaultAzureCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

try {
  const client = new SecretClient(process.env.VAULT_URL, new DefaultAzureCredential());
  const secret = await client.getSecret(process.argv[2] ?? "greeting");
  console.log(secret.value);
} catch (err) {
  console.error(String(err));
  process.exit(1);
}
