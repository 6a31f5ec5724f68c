// A program that runs elsewhere: it has a token of another issuer in the file
// AZURE_FEDERATED_TOKEN_FILE, and AZURE_CLIENT_ID, AZURE_TENANT_ID and
// AZURE_AUTHORITY_HOST, as programs in a cluster have them. With the Azure SDK
// for JavaScript's credential for that, or the one that its argument "assertion"
// asks for, it prints the secret greeting of the vault at VAULT_URL.
import { readFile } from "node:fs/promises";
import { ClientAssertionCredential, WorkloadIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

// Instance discovery asks the public cloud.
const options = { disableInstanceDiscovery: true };
const { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: id, AZURE_FEDERATED_TOKEN_FILE: file } = process.env;

try {
  const credential =
    process.argv[2] === "assertion"
      ? new ClientAssertionCredential(tenant, id, () => readFile(file, "utf8"), options)
      : new WorkloadIdentityCredential(options);
  const secret = await new SecretClient(process.env.VAULT_URL, credential).getSecret("greeting");
  console.log(secret.value);
} catch (err) {
  console.error(String(err));
  process.exit(1);
}
