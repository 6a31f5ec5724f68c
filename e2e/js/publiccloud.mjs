// A program that was written for the public cloud and knows of nothing else: the
// SDKs' own defaults, and the names of the cloud in its text.
//
// Node's own fetch, which the Graph client takes, heeds no proxy before Node 24;
// a program behind one sets this dispatcher, here as in any company.
import { DefaultAzureCredential } from "@azure/identity";
import { ManagedServiceIdentityClient } from "@azure/arm-msi";
import { SecretClient } from "@azure/keyvault-secrets";
import { Client } from "@microsoft/microsoft-graph-client";
import { TokenCredentialAuthenticationProvider } from "@microsoft/microsoft-graph-client/authProviders/azureTokenCredentials/index.js";
import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new EnvHttpProxyAgent());

const credential = new DefaultAzureCredential();

const commands = {
  async secret(vault, name) {
    const secret = await new SecretClient(`https://${vault}.vault.azure.net/`, credential).getSecret(name);
    console.log(secret.value);
    console.log(secret.properties.id);
  },
  async identities(group) {
    const client = new ManagedServiceIdentityClient(credential, process.env.AZURE_SUBSCRIPTION_ID);
    for await (const identity of client.userAssignedIdentities.listByResourceGroup(group)) console.log(identity.name);
  },
  async name(object) {
    const authProvider = new TokenCredentialAuthenticationProvider(credential, { scopes: ["https://graph.microsoft.com/.default"] });
    const graph = Client.initWithMiddleware({ authProvider });
    const sp = await graph.api(`/servicePrincipals/${object}`).select("displayName").get();
    console.log(sp.displayName);
  },
};

try {
  const [command, ...args] = process.argv.slice(2);
  await commands[command](...args);
} catch (err) {
  console.error(String(err), err.code ?? "");
  process.exit(1);
}
