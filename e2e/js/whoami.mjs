// The Azure SDK for JavaScript with its default credential, and nothing told to
// it. It prints its token's claims.
import { DefaultAzureCredential } from "@azure/identity";

try {
  const { token } = await new DefaultAzureCredential().getToken("https://vault.azure.net/.default");
  console.log(Buffer.from(token.split(".")[1], "base64url").toString());
} catch (err) {
  console.error(String(err));
  process.exit(1);
}
